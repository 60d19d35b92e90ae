"""The pixels that a point reads along one axis, and their weights.

Every method of `grid_sample` is separable: a point reads a few pixels ("taps") of each axis, and
the weight of a pixel is the product of its weights along the axes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

METHODS = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
COORDINATES = ("normalized", "pixels")

# Positions are clipped to this: float32 represents halves up to here, and int32 holds them.
FARTHEST = 2.0**22


class Settings(NamedTuple):
    """The options of `grid_sample`."""

    method: str
    padding: str
    align_corners: bool
    coordinates: str


class Tap(NamedTuple):
    """One of the pixels that each point reads along an axis; arrays of the points' shape.

    Attributes:
      pixel: int32 index, clipped to the image.
      weight: of the pixel.
      inside: whether the tap is inside the image; taps outside read zero.
    """

    pixel: jax.Array
    weight: jax.Array
    inside: jax.Array


def positions(coordinate: jax.Array, size: int, settings: Settings) -> jax.Array:
    """Returns positions in pixels along an axis of `size` pixels, after padding.

    The centre of the first pixel is 0. Positions are clipped to FARTHEST, infinity included. With
    "border" and "reflection" they are inside the image, except for bicubic, which pads each tap
    instead, as PyTorch does.
    """
    position = _clip(coordinate, -FARTHEST, FARTHEST)
    if settings.coordinates == "normalized":
        if settings.align_corners:
            position = (position + 1) * ((size - 1) / 2)
        else:
            position = position * (size / 2) + (size - 1) / 2
        position = _clip(position, -FARTHEST, FARTHEST)
    if settings.method == "bicubic":
        return position
    return _pad(position, size, settings)


def taps(position: jax.Array, size: int, settings: Settings) -> list[Tap]:
    """Returns the taps of positions in pixels (from `positions`), from left to right."""
    # One array per tap: XLA's CPU code for an array of all taps is several times slower.
    if settings.method == "nearest":
        index = jnp.round(jax.lax.stop_gradient(position))
        return [_tap(index, jnp.ones_like(index), size)]
    floor = jnp.floor(jax.lax.stop_gradient(position))
    t = position - floor
    if settings.method == "bilinear":
        # Not 1 - |t - offset|: its derivative in JAX is 0 at whole pixels, where the identity puts
        # every point; PyTorch's is the right-hand derivative.
        return [_tap(floor, 1 - t, size), _tap(floor + 1, t, size)]
    return [_tap(_pad(floor + j, size, settings), _keys(t - j), size) for j in range(-1, 3)]


def _tap(index: jax.Array, weight: jax.Array, size: int) -> Tap:
    inside = (index >= 0) & (index <= size - 1)
    return Tap(jnp.clip(index, 0, size - 1).astype(jnp.int32), weight, inside)


def _clip(position: jax.Array, low: float, high: float) -> jax.Array:
    # PyTorch's convention: no gradient at the bounds or beyond.
    return jnp.where(position <= low, low, jnp.where(position >= high, high, position))


def _pad(position: jax.Array, size: int, settings: Settings) -> jax.Array:
    if settings.padding == "zeros":
        return position
    if settings.padding == "reflection":
        # The mirrors are at the outermost pixels' centres or at their outer edges.
        low, high = (0.0, size - 1.0) if settings.align_corners else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            return jnp.zeros_like(position)
        offset = jnp.abs(position - low)
        turns = jnp.floor(jax.lax.stop_gradient(offset) / span)
        rest = jnp.clip(offset - turns * span, 0, span)
        position = jnp.where(turns % 2 == 0, rest + low, span - rest + low)
    return _clip(position, 0.0, size - 1.0)


def _keys(offset: jax.Array) -> jax.Array:
    """Cubic convolution kernel (Keys 1981) with a = -0.75, PyTorch's choice."""
    a, d = -0.75, jnp.abs(offset)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return jnp.where(d <= 1, near, jnp.where(d < 2, far, 0))
