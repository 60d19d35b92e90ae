"""Accuracy on faces of low quality: python -m benchmarks.quality --fer2013 FILE_OR_FOLDER.

Changes FER-2013's validation faces as small pictures, compression, dark rooms and noisy cameras do,
and prints the accuracy of networks on them.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image
from tabulate import tabulate

from benchmarks.photos import compressed
from configs import fer2013
from datasets.load import load_dataset
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.pretrained import load_pretrained, pretrained_names

Change = Callable[[np.ndarray], np.ndarray]


def small(side: int) -> Change:
    """Returns a change that makes a face smaller and enlarges it again."""

    def change(face: np.ndarray) -> np.ndarray:
        shrunk = Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS)
        return np.asarray(shrunk.resize(face.shape[::-1], Image.Resampling.BICUBIC))

    return change


def noisy(deviation: float) -> Change:
    """Returns a change that adds normal noise; `deviation` is a share of white."""
    rng = np.random.default_rng(0)

    def change(face: np.ndarray) -> np.ndarray:
        noise = rng.normal(0, 255 * deviation, face.shape)
        return np.clip(face + noise, 0, 255).round().astype(np.uint8)

    return change


def exposed(gamma: float) -> Change:
    """Returns a change that raises the pixels to the power of `gamma`: above 1, it darkens."""
    return lambda face: (255 * (face / 255) ** gamma).round().astype(np.uint8)


CHANGES: Mapping[str, Change] = {
    "none": lambda face: face,
    "32 pixels wide": small(32),
    "24 pixels wide": small(24),
    "16 pixels wide": small(16),
    "12 pixels wide": small(12),
    "JPEG, quality 30": compressed(30),
    "JPEG, quality 10": compressed(10),
    "noise of 5 %": noisy(0.05),
    "noise of 10 %": noisy(0.1),
    "gamma 0.5": exposed(0.5),
    "gamma 2": exposed(2),
}


def accuracies(models: Sequence[DeepEmotion], images: np.ndarray, labels: np.ndarray) -> list[list]:
    """Scores networks on each of `CHANGES`.

    Args:
      models: the networks.
      images: uint8 [N, 48, 48, 1].
      labels: int [N].

    Returns:
      Rows of a change's name and the accuracy of each network in percent.
    """
    rows = []
    for name, change in CHANGES.items():
        changed = np.stack([change(face[..., 0]) for face in images])[..., None]
        found = [predict_logits(model, changed).argmax(1) for model in models]
        rows.append([name, *(100 * np.mean(labels == predicted) for predicted in found)])
    return rows


def main() -> None:
    """Prints a table with a row for each change and a column for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fer2013", required=True, help="the download; see datasets/fer2013")
    parser.add_argument("--models", nargs="+", default=pretrained_names(), metavar="NAME_OR_PATH")
    options = parser.parse_args()
    config = fer2013.get_config()
    config.manual_dir = options.fer2013
    faces = load_dataset(config, ["validation"]).splits["validation"]
    models = [load_pretrained(name).model for name in options.models]
    rows = accuracies(models, np.asarray(faces.images), faces.labels)
    print(f"PublicTest, {len(faces.labels):,} faces, accuracy in percent, not mirrored")
    print(tabulate(rows, ["change", *options.models], floatfmt=".2f"))


if __name__ == "__main__":
    main()
