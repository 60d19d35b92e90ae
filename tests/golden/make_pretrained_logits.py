"""Makes pretrained_logits.npz, what the networks of the package answer, held by test_weights.py.

    python tests/golden/make_pretrained_logits.py      # after the weights were replaced

Logits are computed in float64 by a plain reading of the paper's figure in SciPy and NumPy, straight
from the tensors in the file: no code of the package but its drawing of faces has a part in them.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.signal import correlate

ROOT = Path(__file__).parents[2]
FACES = 8


def convolutions(x: np.ndarray, w: dict, prefix: str, count: int, pool: int, pad: int):
    """[H, W, C] through conv, ReLU, ..., conv, max-pool, ReLU."""
    for i in range(count):
        kernel, bias = w[f"{prefix}.convs.{i}.kernel"], w[f"{prefix}.convs.{i}.bias"]
        x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
        maps = [
            sum(
                correlate(x[..., j], kernel[..., j, k], "valid", "direct")
                for j in range(x.shape[2])
            )
            for k in range(kernel.shape[3])
        ]
        x = np.maximum(np.stack(maps, -1) + bias, 0)  # ReLU and maximum may be swapped.
    h, width, c = x.shape
    return x.reshape(h // pool, pool, width // pool, pool, c).max((1, 3))


def sample(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Bilinear affine sampling of [S, S, C], zeros outside, corners at the outer pixel edges."""
    side = len(x)
    centres = (2 * np.arange(side) + 1) / side - 1
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros_like(x)
    for i, j in np.ndindex(side, side):
        column, row = ((theta @ [centres[j], centres[i], 1] + 1) * side - 1) / 2 + 1
        r, c = int(np.floor(row)), int(np.floor(column))
        for dr, dc in np.ndindex(2, 2):
            if 0 <= r + dr < side + 2 and 0 <= c + dc < side + 2:
                weight = (1 - abs(row - r - dr)) * (1 - abs(column - c - dc))
                out[i, j] += weight * padded[r + dr, c + dc]
    return out


def logits(image: np.ndarray, w: dict) -> np.ndarray:
    face = (image - image.mean()) / max(image.std(), 1 / 255)
    look = convolutions(face, w, "localization.stages.0", 1, 4, 1)
    look = convolutions(look, w, "localization.stages.1", 1, 4, 1).ravel()
    look = np.maximum(look @ w["localization.hidden.kernel"] + w["localization.hidden.bias"], 0)
    theta = look @ w["localization.theta.kernel"] + w["localization.theta.bias"]
    x = face
    for stage in sorted({name.split(".")[1] for name in w if name.startswith("stages.")}):
        count = sum(name.startswith(f"stages.{stage}.") for name in w) // 2
        # The figure has two stages of valid convolutions; the wide trunk pads its four.
        x = convolutions(x, w, f"stages.{stage}", count, 2, int("stages.2.convs.0.bias" in w))
    x = sample(x, theta.reshape(2, 3)).ravel()
    return np.maximum(x @ w["fc1.kernel"] + w["fc1.bias"], 0) @ w["fc2.kernel"] + w["fc2.bias"]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from datasets.synthetic_faces.face import draw_example

    images = np.stack([draw_example(0, index).image for index in range(FACES)])
    answers = {}
    for path in (ROOT / "deep_emotion_jax/pretrained").glob("*.safetensors"):
        weights = {name: tensor.astype(np.float64) for name, tensor in load_file(path).items()}
        found = [logits(image.reshape(48, 48, 1) / 255, weights) for image in images]
        answers[path.stem] = np.array(found, np.float32)
    np.savez_compressed(
        Path(__file__).with_name("pretrained_logits.npz"),
        images=images.reshape(-1, 48, 48, 1),
        **answers,
    )


if __name__ == "__main__":
    main()
