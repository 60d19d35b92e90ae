"""The sampler against PyTorch's `grid_sample`, forward and forward with backward.

    python -m benchmarks.grid_sample

Bilinear with zero padding, float32, batch 128, on the GPU or all cores: the features that the
paper's network samples (9x9x10), a face (48x48x1) and a photo (256x256x3). The grid comes from
random affine maps; the backward pass computes the gradients of image and grid for a given gradient
of the output. Each side uses its own layout, NHWC here and NCHW in PyTorch. The results are
compared before the timing.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.needs import require

require("torch")

import torch
from torch.nn import functional

from benchmarks import common
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample
from deep_emotion_jax.training.augment import random_theta
from deep_emotion_jax.training.config import Augmentation

torch.set_num_threads(common.CORES)

SIZES = ((9, 9, 10), (48, 48, 1), (256, 256, 3))
Result = tuple[np.ndarray, ...]


def make_inputs(batch: int, size: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Makes image, grid and gradient of the output, in this project's layout."""
    settings = Augmentation(flip=False, shift=0.1, rotate=20, scale=0.1)
    theta = random_theta(jax.random.key(0), (batch, *size[:2]), settings)
    rng = np.random.default_rng(0)
    image, cotangent = rng.standard_normal((2, batch, *size), np.float32)
    return image, np.array(affine_grid(theta, size[:2])), cotangent


def jax_sides(inputs: tuple[np.ndarray, ...]) -> dict[str, Callable[[], Any]]:
    """Returns forward, and forward with backward, with the batch divided between the devices."""
    mesh = common.make_mesh()
    over_devices = partial(
        jax.shard_map, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")
    )

    @jax.jit
    @over_devices
    def both(image, grid, cotangent):
        out, pullback = jax.vjp(grid_sample, image, grid)
        return out, *pullback(cotangent)

    forward = jax.jit(over_devices(grid_sample))
    image, grid, cotangent = jax.device_put(inputs, jax.NamedSharding(mesh, jax.P("data")))
    return {
        "forward": lambda: jax.block_until_ready(forward(image, grid)),
        "forward_backward": lambda: jax.block_until_ready(both(image, grid, cotangent)),
    }


def torch_sides(
    inputs: tuple[np.ndarray, ...], device: str = "cpu"
) -> dict[str, Callable[[], Any]]:
    """Returns the same functions in eager PyTorch."""
    image, grid, cotangent = (torch.from_numpy(part).to(device) for part in inputs)
    image = image.permute(0, 3, 1, 2).contiguous().requires_grad_()
    cotangent = cotangent.permute(0, 3, 1, 2).contiguous()
    grid.requires_grad_()

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return finished(functional.grid_sample(image, grid, align_corners=False))

    def both() -> tuple[torch.Tensor, ...]:
        out = functional.grid_sample(image, grid, align_corners=False)
        return finished((out.detach(), *torch.autograd.grad(out, (image, grid), cotangent)))

    def finished(result: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return {"forward": forward, "forward_backward": both}


def check(ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    """Raises AssertionError unless both give the same output and gradients."""
    out, image_grad, grid_grad = ours()
    torch_out, torch_image_grad, torch_grid_grad = theirs()
    for mine, other in ((out, torch_out), (image_grad, torch_image_grad)):
        np.testing.assert_allclose(mine, other.permute(0, 2, 3, 1).cpu(), atol=1e-3)
    # Rounding can move a point to the other side of a pixel's edge, where the slope differs.
    difference = np.abs(np.asarray(grid_grad) - torch_grid_grad.cpu().numpy())
    assert np.mean(difference > 1e-2 * np.abs(grid_grad).max()) < 1e-3


def main() -> None:
    """Measures all sizes and writes grid_sample.json."""
    arguments = common.parser(__doc__).parse_args()
    batch, rounds, seconds = (2, 1, 0.0) if arguments.quick else (128, 9, 0.5)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    results = {}
    for size in SIZES:
        inputs = make_inputs(batch, size)
        ours, theirs = jax_sides(inputs), torch_sides(inputs, device)
        check(ours["forward_backward"], theirs["forward_backward"])
        for work in ours:
            sides = {"jax": ours[work], "torch_eager": theirs[work]}
            times = common.time_in_turn(sides, rounds, seconds)
            medians = {side: 1e3 * statistics.median(t) for side, t in times.items()}
            ratio = common.speed_ratios(times)["torch_eager"]
            name = f"{'x'.join(map(str, size))} {work}"
            results[name] = {
                "milliseconds": medians,
                "jax_times_faster": ratio,
                "rounds_seconds": times,
            }
            print(
                f"{name:28s} jax {medians['jax']:8.3f} ms  torch {medians['torch_eager']:8.3f} ms"
                f"  jax is {ratio:.2f} times as fast",
                flush=True,
            )
    settings = {"batch": batch, "rounds": rounds, "seconds_a_turn": seconds}
    common.write_json(arguments.results, "grid_sample", settings, results)


if __name__ == "__main__":
    main()
