"""Implementations of reading an image at taps: one for all devices, two for XLA on CPUs.

All have the same values and derivatives of every order. docs/grid_sample.md has the measurements.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from itertools import product
from operator import add, and_, mul, or_

import jax
import jax.numpy as jnp
import numpy as np

from deep_emotion_jax.nn.backend import platform
from deep_emotion_jax.nn.taps import Settings, positions, taps

# Output elements computed at a time on a CPU, so that intermediate results stay in its cache.
CACHED_NUMBERS = 2**18
# A CPU reads up to this many channels one at a time, and more channels in pairs of pixels.
MAX_PLANES = 4

Corner = tuple[jax.Array, jax.Array, jax.Array]
"""Index of a pixel in the whole batch, its weight, and whether it is inside; [N, P] each."""
Points = Sequence[jax.Array]
"""Coordinates [N, P], one array per axis of the image, in the order of its axes."""
Read = Callable[[jax.Array, Points, Settings], jax.Array]


def choose(shape: Sequence[int], settings: Settings) -> Read:
    """Returns the implementation measured fastest for images [N, *sizes, C] on this platform."""
    exported = not isinstance(shape[0], int)  # symbolic: the program may run on any device
    if platform() != "cpu" or settings.method == "bicubic" or exported:
        return gather
    if shape[-1] <= MAX_PLANES:
        return planes
    return pairs if settings.method == "bilinear" else gather


def gather(image: jax.Array, points: Points, settings: Settings) -> jax.Array:
    """Reads one tap at a time; bicubic's 16 taps at once, which compiles faster.

    Args:
      image: [N, *sizes, C], at least one pixel.
      points: coordinates; NaN gives NaN in every channel, without gradients.
      settings: method, padding and coordinates.

    Returns:
      [N, P, C].
    """
    lost = _lost(points)
    points = [jnp.where(lost, 0, axis) for axis in points]
    pixels = image.reshape(-1, image.shape[-1])
    found = corners(image.shape, points, settings)
    if settings.method != "bicubic":
        out = _sum(_read(pixels, corner) for corner in found)
    else:
        index, weight, inside = (jnp.stack(part) for part in zip(*found, strict=True))
        values = jnp.where(inside[..., None], _take(pixels, index), 0)
        out = jnp.einsum("knp,knpc->npc", weight, values, precision="highest")
    return jnp.where(lost[..., None], jnp.nan, out)


def planes(image: jax.Array, points: Points, settings: Settings) -> jax.Array:
    """Computes `gather` one channel at a time, so that the inner loop runs over points."""
    channels = image.shape[-1]
    if channels == 1:
        return gather(image, points, settings)

    def few(image: jax.Array, points: Points) -> jax.Array:
        lost = _lost(points)
        points = [jnp.where(lost, 0, axis) for axis in points]
        found = corners(image.shape, points, settings)

        def plane(values: jax.Array) -> jax.Array:
            out = _sum(_read(values, corner) for corner in found)
            return jnp.where(lost[..., None], jnp.nan, out)

        by_channel = jnp.moveaxis(image, -1, 0).reshape(channels, -1, 1)
        return jnp.moveaxis(jax.lax.map(plane, by_channel)[..., 0], 0, -1)

    return _in_parts(few, image, points)


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return reduce(add, terms)


def _lost(points: Points) -> jax.Array:
    return reduce(or_, map(jnp.isnan, points))


def corners(shape: Sequence[int], points: Points, settings: Settings) -> list[Corner]:
    """Returns all taps of points in images [N, *sizes, C], the product over the axes."""
    sizes = shape[1:-1]
    axes = [
        taps(positions(points[k], size, settings), size, settings) for k, size in enumerate(sizes)
    ]
    found = []
    for chosen in product(*axes):
        pixel = jax.lax.broadcasted_iota(jnp.int32, points[0].shape, 0)
        for tap, size in zip(chosen, sizes, strict=True):
            pixel = pixel * size + tap.pixel
        weight = reduce(mul, [tap.weight for tap in chosen])
        found.append((pixel, weight, reduce(and_, [tap.inside for tap in chosen])))
    return found


def _read(pixels: jax.Array, corner: Corner) -> jax.Array:
    index, weight, inside = corner
    return jnp.where(inside[..., None], _take(pixels, index), 0) * weight[..., None]


def _take(pixels: jax.Array, index: jax.Array) -> jax.Array:
    return pixels.at[index].get(mode="promise_in_bounds")


def _in_parts(few: Callable, image: jax.Array, points: Points) -> jax.Array:
    """Applies `few` to a part of the batch at a time; gradients recompute it."""
    n = len(image)
    size = max(1, min(n, CACHED_NUMBERS // (points[0].shape[1] * image.shape[-1])))
    while n % size:
        size -= 1
    if size == n:
        return few(image, points)
    split = [array.reshape(n // size, size, *array.shape[1:]) for array in (image, *points)]
    few = jax.checkpoint(few, prevent_cse=False)
    out = jax.lax.map(lambda part: few(part[0], part[1:]), tuple(split))
    return out.reshape(n, *out.shape[2:])


def pairs(image: jax.Array, points: Points, settings: Settings) -> jax.Array:
    """Bilinear only: gradients are added in pairs of neighbouring pixels, which are contiguous."""
    sizes = image.shape[1:-1]
    # A pair needs two pixels; the one added to a side of one is zero.
    margins = [(0, int(size == 1)) for size in sizes]
    image = jnp.pad(image, ((0, 0), *margins, (0, 0)))
    padded = jnp.asarray(image.shape[1:-1], points[0].dtype)

    def few(image: jax.Array, points: Points) -> jax.Array:
        lost = _lost(points)
        points = [jnp.where(lost, 0, axis) for axis in points]
        by_axis = jnp.stack([positions(points[k], size, settings) for k, size in enumerate(sizes)])

        def start(axis: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            position, size = axis
            first = jnp.clip(jnp.floor(jax.lax.stop_gradient(position)), 0, size - 2)
            return first.astype(jnp.int32), position - first

        # A loop, so that XLA computes these once and not for each channel and corner.
        first, offset = jax.lax.map(start, (by_axis, padded))
        out = _pairs(image, first, offset)
        return jnp.where(lost[..., None], jnp.nan, out)

    return _in_parts(few, image, points)


@jax.custom_jvp
def _pairs(image: jax.Array, first: jax.Array, offset: jax.Array) -> jax.Array:
    """Linear interpolation between pixels `first` and `first + 1` of every axis.

    The custom derivative has the same values; its transpose is one scatter of pairs.

    Args:
      image: [N, *sizes, C], at least two pixels a side.
      first: int32 [axes, N, P].
      offset: [axes, N, P], position minus `first`; any value, far points read nothing.
    """
    pixels = image.reshape(-1, image.shape[-1])
    return _sum(_read(pixels, corner) for corner in _pair_corners(image.shape, first, offset))


@_pairs.defjvp
def _pairs_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    image, first, offset = primals
    image_dot, _, offset_dot = tangents
    channels = image.shape[-1]
    pixels = image.reshape(-1, channels)
    places = _pair_corners(image.shape, first, offset)
    weights, weights_dot = jax.jvp(
        lambda offset: [weight for _, weight, _ in _pair_corners(image.shape, first, offset)],
        (offset,),
        (offset_dot,),
    )
    values = [jnp.where(inside[..., None], _take(pixels, i), 0) for i, _, inside in places]
    out = _sum(value * w[..., None] for value, w in zip(values, weights, strict=True))
    tangent = _sum(value * w[..., None] for value, w in zip(values, weights_dot, strict=True))
    return out, tangent + _image_tangent(image_dot, first, offset)


def _image_tangent(image_dot: jax.Array, first: jax.Array, offset: jax.Array) -> jax.Array:
    """Interpolates the tangent of the image; the transpose is one scatter of pairs."""
    sizes, channels = image_dot.shape[1:-1], image_dot.shape[-1]
    # Offset of each corner along each axis, [pairs, 2, axes].
    chosen = np.array(list(product(range(2), repeat=len(sizes)))).reshape(-1, 2, len(sizes))
    strides = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
    image_number = jax.lax.broadcasted_iota(jnp.int32, first.shape[1:], 0)
    starts = image_number * math.prod(sizes)
    for start, stride in zip(first, strides, strict=True):
        starts = starts + start * stride
    starts = (starts[..., None] + (chosen[:, 0] @ np.array(strides)).astype(np.int32)) * channels
    contiguous = jax.lax.GatherDimensionNumbers(
        offset_dims=(starts.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    rows = jax.lax.gather(
        image_dot.reshape(-1),
        starts[..., None],
        contiguous,
        (2 * channels,),
        mode="promise_in_bounds",
    ).reshape(*starts.shape, 2, channels)
    weights = reduce(
        mul, [_hat(u[..., None, None] - chosen[..., k])[0] for k, u in enumerate(offset)]
    )[..., None]
    return (jnp.where(weights != 0, rows, 0) * weights).sum((-3, -2))


def _pair_corners(shape: Sequence[int], first: jax.Array, offset: jax.Array) -> list[Corner]:
    sizes = shape[1:-1]
    found = []
    for chosen in product(range(2), repeat=len(sizes)):
        pixel = jax.lax.broadcasted_iota(jnp.int32, first.shape[1:], 0)
        for start, j, size in zip(first, chosen, sizes, strict=True):
            pixel = pixel * size + (start + j)
        hats = [_hat(u - j) for u, j in zip(offset, chosen, strict=True)]
        found.append(
            (pixel, reduce(mul, [hat for hat, _ in hats]), reduce(and_, [at for _, at in hats]))
        )
    return found


def _hat(distance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the weight of a pixel at a distance (right-hand slopes) and whether it is read."""
    read = (distance >= -1) & (distance < 1)
    return jnp.where(read, jnp.where(distance < 0, 1 + distance, 1 - distance), 0), read
