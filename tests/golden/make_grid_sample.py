"""Makes grid_sample.npz (images) and grid_sample_3d.npz (volumes) with PyTorch.

    python tests/golden/make_grid_sample.py        # needs numpy and torch; written with torch 2.13

Inputs are float32, PyTorch computes in float64. Values of `grid_sample` and its gradients can only
be compared where they are smooth, so no point is within MARGIN pixels of a kink. In both corner
conventions the kinks are at whole pixels (cells of bilinear, edges of border) and at half pixels
(rounding of nearest, mirrors of reflection): points there are drawn again.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

PADDINGS = ("zeros", "border", "reflection")
REACH = 2.5
MARGIN = 0.01


def draw_grid(rng: np.random.Generator, shape: tuple[int, ...], sides: list[int]) -> np.ndarray:
    """Draws points (x, y) or (x, y, z) away from kinks, for sides in the same order."""
    grid = rng.uniform(-REACH, REACH, shape).astype(np.float32)
    while (bad := near_kink(grid, np.array(sides))).any():
        grid[bad] = rng.uniform(-REACH, REACH, bad.sum())
    return grid


def near_kink(grid: np.ndarray, sides: np.ndarray) -> np.ndarray:
    positions = [(grid + 1) / 2 * (sides - 1), ((grid + 1) * sides - 1) / 2]
    return np.any([np.abs(p * 2 - np.round(p * 2)) < 2 * MARGIN for p in positions], axis=0)


def channels_last(values: torch.Tensor) -> torch.Tensor:
    return values.movedim(1, -1)


def make(
    rng: np.random.Generator,
    image_shape: tuple[int, ...],
    points: tuple[int, ...],
    methods: tuple[str, ...],
    sizes: list[tuple[int, ...]],
) -> dict[str, np.ndarray]:
    n, *sides, channels = image_shape
    axes = len(sides)
    golden = {
        "image": rng.normal(size=image_shape).astype(np.float32),
        "grid": draw_grid(rng, (n, *points, axes), sides[::-1]),
        "cotangent": rng.normal(size=(n, *points, channels)).astype(np.float32),
        "theta": rng.normal(size=(n, axes, axes + 1)).astype(np.float32),
    }
    theta = torch.from_numpy(golden["theta"]).double()
    cotangent = torch.from_numpy(golden["cotangent"]).double()
    for corners, size in product((False, True), sizes):
        grid = functional.affine_grid(theta, [n, 1, *size], align_corners=corners)
        golden[f"affine_grid/{'x'.join(map(str, size))}/{corners}"] = grid.numpy()
    for corners, method, padding in product((False, True), methods, PADDINGS):
        image = torch.from_numpy(golden["image"]).double().requires_grad_()
        grid = torch.from_numpy(golden["grid"]).double().requires_grad_()
        out = functional.grid_sample(image.movedim(-1, 1), grid, method, padding, corners)
        out = channels_last(out)
        out.backward(cotangent)
        name = f"{method}/{padding}/{corners}"
        golden[f"{name}/out"] = out.detach().numpy()
        golden[f"{name}/image_gradient"] = image.grad.numpy()
        golden[f"{name}/grid_gradient"] = grid.grad.numpy()
    return {name: value.astype(np.float32) for name, value in golden.items()}


def main() -> None:
    folder = Path(__file__).parent
    methods = ("bilinear", "nearest", "bicubic")
    images = make(np.random.default_rng(0), (2, 6, 5, 3), (7, 8), methods, [(6, 5), (1, 4)])
    np.savez_compressed(folder / "grid_sample.npz", **images)
    volumes = make(
        np.random.default_rng(1), (2, 3, 4, 5, 2), (3, 2, 4), methods[:2], [(3, 4, 5), (1, 2, 3)]
    )
    np.savez_compressed(folder / "grid_sample_3d.npz", **volumes)


if __name__ == "__main__":
    main()
