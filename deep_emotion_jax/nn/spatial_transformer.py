"""Differentiable affine grid sampling in pure jax.numpy (Jaderberg et al. 2015, sections 3.2-3.3).

    grid = affine_grid(theta, (48, 48))          # theta [N, 2, 3]
    out = grid_sample(image, grid)               # image [N, H, W, C]

Coordinates are (x, y) in [-1, 1], from the left and from the top. With `align_corners` -1 and 1 are
the centres of the outermost pixels, without it their outer edges. Numbers and gradients follow
PyTorch's functions of the same names (tests/golden holds its values).

Every method is separable, so one function, `_taps`, says for each axis which pixels a point reads
and with which weights. Three strategies evaluate that: a gather of all taps (bicubic), a gather per
tap that XLA fuses into the weighted sum (bilinear, nearest), and for very small maps a product with
dense weights, which needs no gather forward and no scatter-add backward.
"""

import jax
import jax.numpy as jnp

METHODS = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")

# Bilinear, forward and backward under jit, microseconds per image on one core (AMD EPYC), dense
# against gather: 3x3x10 2.9 / 3.1, 5x5x10 6.5 / 6.7, 6x6x10 9.3 / 7.5, 9x9x10 30 / 15; the dense
# cost grows with the square of the pixels (48x48x1: 2,900 / 110). Other devices may differ.
DENSE_MAX_PIXELS = 25

Taps = tuple[jax.Array, jax.Array]
"""Pixel indices and weights, [N, H', W', taps] each; a weight of zero stands for "outside"."""


def affine_grid(theta: jax.Array, size: tuple[int, int], align_corners: bool = False) -> jax.Array:
    """The points an affine map reads for each pixel of an output of a given size.

    Args:
      theta: [N, 2, 3], rows give x and y of the source from (x, y, 1) of the output (eq. 1).
      size: (H, W) of the output.
      align_corners: whether -1 and 1 are pixel centres or outer pixel edges.

    Returns:
      [N, H, W, 2], (x, y) in normalised coordinates, in at least float32.

    Raises:
      ValueError: if theta is not [N, 2, 3] or the size is not positive.
    """
    if theta.ndim != 3 or theta.shape[1:] != (2, 3):
        raise ValueError(f"theta must be [N, 2, 3], got {list(theta.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (H, W), both at least 1, got {size}")
    theta = jnp.asarray(theta)
    theta = theta.astype(jnp.promote_types(theta.dtype, jnp.float32))

    def centres(count: int) -> jax.Array:
        if align_corners:
            # PyTorch puts the single pixel of a side of one in the middle.
            return jnp.linspace(-1, 1, count) if count > 1 else jnp.zeros(1)
        return (2 * jnp.arange(count) + 1) / count - 1

    y, x = jnp.meshgrid(centres(size[0]), centres(size[1]), indexing="ij")
    points = jnp.stack([x, y, jnp.ones_like(x)], -1).astype(theta.dtype)
    return jnp.einsum("hwk,nck->nhwc", points, theta, precision="highest")


def grid_sample(
    image: jax.Array,
    grid: jax.Array,
    method: str = "bilinear",
    padding: str = "zeros",
    align_corners: bool = False,
) -> jax.Array:
    """Reads an image at the points of a grid.

    Total: any finite grid gives finite values and gradients, however far outside the image. At a
    whole pixel the bilinear gradient is the one towards the right (below), as in PyTorch.

    Args:
      image: [N, H, W, C], floating point.
      grid: [N, H', W', 2], (x, y) in normalised coordinates; computed in at least float32.
      method: "bilinear", "nearest" (half to even) or "bicubic" (Keys, a = -0.75).
      padding: what lies outside: "zeros", "border" (the nearest edge pixel) or "reflection".
      align_corners: whether -1 and 1 are pixel centres or outer pixel edges.

    Returns:
      [N, H', W', C] of the image's dtype.

    Raises:
      ValueError: for an unknown method or padding, or arrays of other shapes or an integer image.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    if image.ndim != 4 or grid.ndim != 4 or grid.shape[-1] != 2 or image.shape[0] != grid.shape[0]:
        raise ValueError(
            "image must be [N, H, W, C] and grid [N, H', W', 2] with the same N, "
            f"got {list(image.shape)} and {list(grid.shape)}"
        )
    _, height, width, _ = image.shape
    if 0 in (height, width):
        raise ValueError(f"image has no pixels: {list(image.shape)}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be floating point, got {image.dtype}")
    image, grid = jnp.asarray(image), jnp.asarray(grid)
    grid = grid.astype(jnp.promote_types(grid.dtype, jnp.float32))
    x = _taps(grid[..., 0], width, method, padding, align_corners)
    y = _taps(grid[..., 1], height, method, padding, align_corners)
    if height * width <= DENSE_MAX_PIXELS:
        evaluate = _dense
    else:
        evaluate = _gather if method == "bicubic" else _gather_each
    # Gradients of a bfloat16 image, too, are summed in float32.
    wide = image.astype(jnp.promote_types(image.dtype, grid.dtype))
    return evaluate(wide, x, y).astype(image.dtype)


def _taps(coordinate: jax.Array, size: int, method: str, padding: str, align_corners: bool) -> Taps:
    if align_corners:
        position = (coordinate + 1) * ((size - 1) / 2)
        low, high = 0.0, size - 1.0
    else:
        position = coordinate * (size / 2) + (size - 1) / 2
        low, high = -0.5, size - 0.5
    # Up to 2**22 float32 still holds halves; without the bound huge values overflow int32.
    position = _clip(position, -(2.0**22), 2.0**22)
    # Bicubic pads each tap (below); the others pad the point itself, as PyTorch does.
    if method != "bicubic":
        position = _pad(position, size, padding, low, high)
    if method == "nearest":
        index = jnp.round(jax.lax.stop_gradient(position))[..., None]
        weight = jnp.ones_like(index)
    else:
        floor = jnp.floor(jax.lax.stop_gradient(position))
        t = (position - floor)[..., None]
        offsets = jnp.arange(2) if method == "bilinear" else jnp.arange(-1, 3)
        index = floor[..., None] + offsets
        # Bilinear is written without |t - offset|, whose derivative JAX takes as 0 at whole
        # pixels, where the identity puts every point; PyTorch takes the right-hand one.
        weight = jnp.concatenate([1 - t, t], -1) if method == "bilinear" else _keys(t - offsets)
    if method == "bicubic" and padding != "zeros":
        index = _pad(index, size, padding, low, high)
    # Asked this way round, NaN counts as inside: a diverged theta shows instead of reading zeros.
    outside = (index < 0) | (index > size - 1)
    index = jnp.clip(index, 0, size - 1).astype(jnp.int32)
    return index, jnp.where(outside, 0, weight)


def _clip(position: jax.Array, low: float, high: float) -> jax.Array:
    # PyTorch's convention: no gradient at the bounds or beyond.
    return jnp.where(position <= low, low, jnp.where(position >= high, high, position))


def _pad(position: jax.Array, size: int, padding: str, low: float, high: float) -> jax.Array:
    if padding == "zeros":
        return position
    if padding == "reflection":
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


def _gather(image: jax.Array, x: Taps, y: Taps) -> jax.Array:
    (column, column_weight), (row, row_weight) = x, y
    n = jax.lax.broadcasted_iota(jnp.int32, (image.shape[0], 1, 1, 1, 1), 0)
    # One gather of all taps compiles six times faster than one per tap.
    pixels = image.at[n, row[..., :, None], column[..., None, :]].get(mode="promise_in_bounds")
    return jnp.einsum(
        "nijy,nijx,nijyxc->nijc", row_weight, column_weight, pixels, precision="highest"
    )


def _gather_each(image: jax.Array, x: Taps, y: Taps) -> jax.Array:
    # Forward nearly twice as fast as `_gather`, with gradients as fast; bicubic's sixteen taps take
    # three times as long this way (docs/performance.md).
    (column, column_weight), (row, row_weight) = x, y
    n = jnp.arange(image.shape[0]).reshape(-1, 1, 1)
    out = jnp.zeros((*column.shape[:3], image.shape[3]), image.dtype)
    for i in range(row.shape[-1]):
        for j in range(column.shape[-1]):
            weight = (row_weight[..., i] * column_weight[..., j])[..., None]
            pixels = image.at[n, row[..., i], column[..., j]].get(mode="promise_in_bounds")
            out = out + weight * pixels
    return out


def _dense(image: jax.Array, x: Taps, y: Taps) -> jax.Array:
    _, height, width, _ = image.shape
    rows, columns = _rows(y, height), _rows(x, width)
    return jnp.einsum("nijh,nijw,nhwc->nijc", rows, columns, image, precision="highest")


def _rows(taps: Taps, size: int) -> jax.Array:
    """Weights of all pixels of an axis, [N, H', W', size]: hat functions in the bilinear case."""
    index, weight = taps
    return (weight[..., None] * (index[..., None] == jnp.arange(size))).sum(-2)
