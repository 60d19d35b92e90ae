"""Makes pretrained_logits.npz, the logits of the packaged networks, for test_weights.py.

    python tests/golden/make_pretrained_logits.py      # after replacing the weights

Logits are computed in float64 with SciPy and NumPy from the tensors in the file, after the paper's
figure. Only the generated faces come from this project's code.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.signal import correlate

ROOT = Path(__file__).parents[2]
FACES = 8


def convolutions(x: np.ndarray, w: dict, prefix: str, pool: int, pad: int, residual: bool = False):
    """[H, W, C] through conv, ReLU, ..., conv, max-pool, ReLU."""
    first, count = 0, sum(name.startswith(f"{prefix}.") for name in w) // 2
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
        x = np.stack(maps, -1) + bias
        if residual and i == count - 1:
            x = x + first
        x = np.maximum(x, 0)  # ReLU and maximum may be swapped.
        if i == 0:
            first = x
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


def logits(image: np.ndarray, w: dict, settings: dict) -> np.ndarray:
    face = (image - image.mean()) / max(image.std(), 1 / 255)
    look = convolutions(face, w, "localization.stages.0", 4, 1)
    look = convolutions(look, w, "localization.stages.1", 4, 1).ravel()
    look = look @ w["localization.hidden.kernel"] + w["localization.hidden.bias"]
    slope = 0.1 if settings.get("localization") == "leaky" else 0
    look = np.where(look > 0, look, slope * look)
    theta = look @ w["localization.theta.kernel"] + w["localization.theta.bias"]
    # The figure has two stages of valid convolutions; the residual trunk pads its four.
    residual = settings.get("trunk") == "residual"
    stages = len({name.split(".")[1] for name in w if name.startswith("stages.")})
    sampled = stages // 2 if settings.get("attention") == "middle" else stages
    x = face
    for stage in range(stages):
        x = convolutions(x, w, f"stages.{stage}", 2, int(stages > 2), residual)
        if stage + 1 == sampled:
            x = sample(x, theta.reshape(2, 3))
    x = np.maximum(x.ravel() @ w["fc1.kernel"] + w["fc1.bias"], 0)
    return x @ w["fc2.kernel"] + w["fc2.bias"]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from datasets.synthetic_faces.face import draw_example

    images = np.stack([draw_example(0, index).image for index in range(FACES)])
    answers = {}
    for path in (ROOT / "deep_emotion_jax/pretrained").glob("*.safetensors"):
        weights = {name: tensor.astype(np.float64) for name, tensor in load_file(path).items()}
        with safe_open(path, "numpy") as file:
            settings = json.loads(file.metadata()["deep_emotion_jax"])["settings"]
        found = [logits(image.reshape(48, 48, 1) / 255, weights, settings) for image in images]
        answers[path.stem] = np.array(found, np.float32)
    np.savez_compressed(
        Path(__file__).with_name("pretrained_logits.npz"),
        images=images.reshape(-1, 48, 48, 1),
        **answers,
    )


if __name__ == "__main__":
    main()
