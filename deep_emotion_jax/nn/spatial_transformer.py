"""Differentiable affine grid sampling in pure jax.numpy (Jaderberg et al. 2015, sections 3.2-3.3).

    grid = affine_grid(theta, (48, 48))          # theta [N, 2, 3]
    out = grid_sample(image, grid)               # image [N, H, W, C]

    grid = affine_grid(theta, (32, 48, 48))      # theta [N, 3, 4]
    out = grid_sample(volume, grid)              # volume [N, D, H, W, C]

Coordinates are (x, y) or (x, y, z), in [-1, 1] from the left, the top and the front. With
`align_corners` -1 and 1 are the centres of the outermost pixels, without it their outer edges.
Values and gradients match PyTorch's functions of the same names (tests/golden holds PyTorch's
values). docs/grid_sample.md describes the conventions with a picture.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deep_emotion_jax.nn import pixel_reads
from deep_emotion_jax.nn.taps import COORDINATES, METHODS, PADDINGS, Settings

__all__ = ["COORDINATES", "METHODS", "PADDINGS", "affine_grid", "grid_sample"]


def affine_grid(theta: jax.Array, size: Sequence[int], align_corners: bool = False) -> jax.Array:
    """Returns the points that an affine map reads, one per pixel of an output of a given size.

    Args:
      theta: [N, 2, 3] or [N, 3, 4]: rows give x, y (and z) of the source from (x, y, 1) or
        (x, y, z, 1) of the output (eq. 1).
      size: (H, W) or (D, H, W) of the output.
      align_corners: whether -1 and 1 are pixel centres or outer pixel edges.

    Returns:
      [N, H, W, 2] or [N, D, H, W, 3] in normalized coordinates, in at least float32.

    Raises:
      ValueError: if theta has another shape, or the size does not fit it or is not positive.
    """
    theta = jnp.asarray(theta)
    if theta.ndim != 3 or theta.shape[1:] not in ((2, 3), (3, 4)):
        raise ValueError(f"theta must be [N, 2, 3] or [N, 3, 4], got {list(theta.shape)}")
    axes = theta.shape[1]
    if len(size) != axes or min(size) < 1:
        names = "(H, W)" if axes == 2 else "(D, H, W)"
        raise ValueError(f"size must be {names}, all at least 1, got {tuple(size)}")
    theta = theta.astype(jnp.promote_types(theta.dtype, jnp.float32))

    def centres(count: int) -> jax.Array:
        if align_corners:
            # PyTorch puts the single pixel of a side of one in the middle.
            return jnp.linspace(-1, 1, count) if count > 1 else jnp.zeros(1)
        return (2 * jnp.arange(count) + 1) / count - 1

    by_axis = jnp.meshgrid(*map(centres, size), indexing="ij")[::-1]
    points = jnp.stack([*by_axis, jnp.ones_like(by_axis[0])], -1).astype(theta.dtype)
    return jnp.einsum("...k,nck->n...c", points, theta, precision="highest")


def grid_sample(
    image: jax.Array,
    grid: jax.Array,
    method: str = "bilinear",
    padding: str = "zeros",
    align_corners: bool = False,
    coordinates: str = "normalized",
) -> jax.Array:
    """Reads images or volumes at the points of a grid.

    Finite pixels and a grid without NaN give finite values and gradients, however far outside the
    points lie, infinity included. A point with a NaN coordinate gives NaN in every channel and adds
    nothing to the gradients. A non-finite pixel affects exactly the points that have it among their
    taps, even with weight 0. At a whole pixel the bilinear gradient is the derivative towards the
    right (below), as in PyTorch.

    Args:
      image: [N, H, W, C] or [N, D, H, W, C], floating point.
      grid: [N, ..., 2] of (x, y) or [N, ..., 3] of (x, y, z), any number of axes between;
        computed in at least float32.
      method: "bilinear" (in volumes: trilinear), "nearest" (half to even) or, for images only,
        "bicubic" (Keys, a = -0.75).
      padding: values outside: "zeros", "border" (the nearest edge pixel) or "reflection".
      align_corners: whether -1 and 1 are pixel centres or outer pixel edges; "reflection" mirrors
        there.
      coordinates: "normalized", or "pixels" with 0 at the centre of the first pixel.

    Returns:
      [N, ..., C] of the image's dtype.

    Raises:
      ValueError: for an unknown option, for arrays of other shapes, and for an image of integers,
        without pixels, or with 2**31 pixels or more in the batch.
    """
    image, grid = jnp.asarray(image), jnp.asarray(grid)
    settings = Settings(method, padding, align_corners, coordinates)
    _check(image, grid, settings)
    channels = image.shape[-1]
    shape = (*grid.shape[:-1], channels)
    if 0 in shape:
        return jnp.zeros(shape, image.dtype)
    points = grid.reshape(grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1])
    points = points.astype(jnp.promote_types(grid.dtype, jnp.float32))
    axes = [points[..., k] for k in reversed(range(points.shape[-1]))]
    # The gradients of a half-precision image are then summed in float32.
    wide = image.astype(jnp.promote_types(image.dtype, points.dtype))
    read = pixel_reads.choose(image.shape, settings)
    out = read(wide, axes, settings)
    return out.reshape(shape).astype(image.dtype)


def _check(image: jax.Array, grid: jax.Array, settings: Settings) -> None:
    for name, value, known in (
        ("method", settings.method, METHODS),
        ("padding", settings.padding, PADDINGS),
        ("coordinates", settings.coordinates, COORDINATES),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")
    axes = image.ndim - 2
    if (
        axes not in (2, 3)
        or grid.ndim < 2
        or grid.shape[-1] != axes
        or image.shape[0] != grid.shape[0]
    ):
        raise ValueError(
            "image must be [N, H, W, C] and grid [N, ..., 2], or image [N, D, H, W, C] and grid "
            f"[N, ..., 3], with the same N, got {list(image.shape)} and {list(grid.shape)}"
        )
    if settings.method == "bicubic" and axes == 3:
        raise ValueError(f"bicubic needs an image [N, H, W, C], got {list(image.shape)}")
    if 0 in image.shape[1:-1]:
        raise ValueError(f"image has no pixels: {list(image.shape)}")
    sides = [
        side for side in image.shape[:-1] if isinstance(side, int)
    ]  # others are symbols of jax.export
    if math.prod(sides) >= 2**31:
        raise ValueError(f"image has 2**31 pixels or more: {list(image.shape)}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be floating point, got {image.dtype}")
