"""Makes grid_sample.npz, the PyTorch values test_spatial_transformer.py compares with.

    python tests/golden/make_grid_sample.py        # needs numpy and torch; written with torch 2.13

Inputs are float32 numbers, PyTorch computes in float64. Values of `grid_sample` and its gradients
are only comparable where they are smooth, so no point lies within MARGIN pixels of a kink. In
either corner convention the kinks lie at whole pixels (cells of bilinear, edges of border) and at
half pixels (rounding of nearest, mirrors of reflection): points there are drawn again.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

N, H, W, C = 2, 6, 5, 3
POINTS = (7, 8)
REACH = 2.5
MARGIN = 0.01


def draw_grid(rng: np.random.Generator) -> np.ndarray:
    grid = rng.uniform(-REACH, REACH, (N, *POINTS, 2)).astype(np.float32)
    while (bad := near_kink(grid)).any():
        grid[bad] = rng.uniform(-REACH, REACH, bad.sum())
    return grid


def near_kink(grid: np.ndarray) -> np.ndarray:
    size = np.array([W, H])
    positions = [(grid + 1) / 2 * (size - 1), ((grid + 1) * size - 1) / 2]
    return np.any([np.abs(p * 2 - np.round(p * 2)) < 2 * MARGIN for p in positions], axis=0)


def main() -> None:
    rng = np.random.default_rng(0)
    golden = {
        "image": rng.normal(size=(N, H, W, C)).astype(np.float32),
        "grid": draw_grid(rng),
        "cotangent": rng.normal(size=(N, *POINTS, C)).astype(np.float32),
        "theta": rng.normal(size=(N, 2, 3)).astype(np.float32),
    }
    theta = torch.from_numpy(golden["theta"]).double()
    cotangent = torch.from_numpy(golden["cotangent"]).double()
    for corners in (False, True):
        for size in ((H, W), (1, 4)):
            grid = functional.affine_grid(theta, [N, 1, *size], align_corners=corners)
            golden[f"affine_grid/{size[0]}x{size[1]}/{corners}"] = grid.numpy()
        for method in ("bilinear", "nearest", "bicubic"):
            for padding in ("zeros", "border", "reflection"):
                image = torch.from_numpy(golden["image"]).double().requires_grad_()
                grid = torch.from_numpy(golden["grid"]).double().requires_grad_()
                out = functional.grid_sample(
                    image.permute(0, 3, 1, 2), grid, method, padding, corners
                ).permute(0, 2, 3, 1)
                out.backward(cotangent)
                name = f"{method}/{padding}/{corners}"
                golden[f"{name}/out"] = out.detach().numpy()
                golden[f"{name}/image_gradient"] = image.grad.numpy()
                golden[f"{name}/grid_gradient"] = grid.grad.numpy()
    arrays = {name: value.astype(np.float32) for name, value in golden.items()}
    np.savez_compressed(Path(__file__).with_name("grid_sample.npz"), **arrays)


if __name__ == "__main__":
    main()
