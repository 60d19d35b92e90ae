"""A stage of the network: convolutions with ReLU, then one max-pool and ReLU.

XLA's convolution is slow on a CPU with ten channels, and on a GPU under `vmap` over models. The
blocked form below computes the same stage as matrix products: every 2x2 block of pixels becomes
four groups of channels (space-to-depth), so a k x k convolution reads a window of (k+1)/2 x (k+1)/2
blocks with no strided access, and a 2x2 max-pool is a maximum over the four groups. The batch is
the innermost axis, so every copy is contiguous. `conv_stage` chooses the form; both have the same
values and gradients (tests/nn/test_conv.py). docs/performance.md has the measurements.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deep_emotion_jax.nn.backend import platform

Padding = Sequence[tuple[int, int]]


class ConvLayer(NamedTuple):
    """One convolution of a stage.

    Attributes:
      kernel: [k, k, C_in, C_out].
      bias: [C_out].
      norm: normalization of the pre-activations, called on [..., C_out], or None.
    """

    kernel: jax.Array
    bias: jax.Array
    norm: Callable[[jax.Array], jax.Array] | None = None


def conv_stage(
    x: jax.Array, layers: Sequence[ConvLayer], pool: int, padding: str, residual: bool = False
) -> jax.Array:
    """Applies conv, ReLU, ..., conv, max-pool, ReLU (paper, figure of the network).

    Args:
      x: [N, H, W, C], any real range.
      layers: the convolutions, in order; stride 1.
      pool: side and stride of the max-pool; remaining rows and columns are dropped.
      padding: "VALID" or "SAME", for every convolution.
      residual: whether the first layer's output is added to the last one's before the max-pool;
        needs "SAME" and equal numbers of channels.

    Returns:
      [N, H', W', C_out], non-negative.
    """
    # Measured: with few channels, matrix products are faster, on a CPU always, and on a GPU under
    # `vmap` over models, where grouped convolutions take eight times as long (docs/experiments.md).
    few_channels = max(layer.kernel.shape[-1] for layer in layers) <= 32
    if few_channels and not residual and _tiles(x, layers, pool, padding):
        return _blocked_stage(x, layers, pool, padding)
    return plain_stage(x, layers, pool, padding, residual)


def plain_stage(
    x: jax.Array, layers: Sequence[ConvLayer], pool: int, padding: str, residual: bool = False
) -> jax.Array:
    """Computes `conv_stage` with XLA's convolution on every device."""
    convolve = _convolve if platform() == "cpu" else _convolution
    first = None
    for i, (kernel, bias, norm) in enumerate(layers):
        x = convolve(x, kernel.astype(x.dtype), padding) + bias.astype(x.dtype)
        if norm is not None:
            x = norm(x).astype(x.dtype)
        if i < len(layers) - 1:
            x = jax.nn.relu(x)
            first = x if first is None else first
    if residual and first is not None:
        x = x + first
    h, w = x.shape[1] // pool * pool, x.shape[2] // pool * pool
    return _max_relu(*(x[:, i:h:pool, j:w:pool] for i in range(pool) for j in range(pool)))


def _convolution(x: jax.Array, kernel: jax.Array, padding: str | Padding) -> jax.Array:
    """Convolves [N, H, W, C_in] with [k, k, C_in, C_out], stride 1."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, padding: str | Padding) -> jax.Array:
    """Computes `_convolution`, with gradients that are fast on CPUs.

    They are convolutions in the same layout, with explicit transposes. JAX's own use other
    layouts, which are 30 times slower on a CPU inside a loop (github.com/jax-ml/jax/issues/12868).
    """
    return _convolution(x, kernel, padding)


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, padding: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, padding), (x, kernel)


def _convolve_backward(
    padding: str, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    k = len(kernel)
    before = (k - 1) // 2 if padding == "SAME" else 0
    after = k - 1 - before if padding == "SAME" else 0
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    x_gradient = _convolve(gradient, turned, ((k - 1 - before, k - 1 - after),) * 2)
    kernel_gradient = _convolve(
        x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), ((before, after),) * 2
    )
    return x_gradient, kernel_gradient.transpose(1, 2, 0, 3)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _tiles(x: jax.Array, layers: Sequence[ConvLayer], pool: int, padding: str) -> bool:
    """Whether the blocked form applies: odd kernels, even maps, and pooling by whole blocks."""
    if padding == "SAME" and len(layers) > 1:
        return False  # padding between two convolutions would shift the blocks
    sizes = [layer.kernel.shape[0] for layer in layers]
    shrink = 0 if padding == "SAME" else sum(k - 1 for k in sizes)
    sides = [side - shrink for side in x.shape[1:3]]
    return (
        pool % 2 == 0
        and all(k % 2 == 1 for k in sizes)
        and all(side > 0 and side % pool == 0 for side in sides)
    )


def _blocked_stage(x: jax.Array, layers: Sequence[ConvLayer], pool: int, padding: str) -> jax.Array:
    if padding == "SAME":
        margin = (layers[0].kernel.shape[0] // 2,) * 2
        x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(2, 4, 5, 1, 3, 0)
    x = x.reshape(4 * c, h // 2, w // 2, n)
    for i, (kernel, bias, norm) in enumerate(layers):
        x = _blocked_conv(x, kernel.astype(x.dtype))
        x = x + jnp.tile(bias.astype(x.dtype), 4)[:, None, None, None]
        if norm is not None:
            groups = x.reshape(4, x.shape[0] // 4, -1)
            x = jnp.moveaxis(norm(jnp.moveaxis(groups, 1, -1)), -1, 1).reshape(x.shape)
        if i < len(layers) - 1:
            x = jax.nn.relu(x)
    x = _max_relu(*x.reshape(4, x.shape[0] // 4, *x.shape[1:]))
    if pool > 2:
        rest, pixels = pool // 2, range(pool // 2)
        x = _max_relu(*(x[:, i::rest, j::rest] for i in pixels for j in pixels))
    return x.transpose(3, 1, 2, 0)


@jax.custom_jvp
def _max_relu(*parts: jax.Array) -> jax.Array:
    """ReLU of the maximum of arrays of one shape; at ties the gradient goes to the first array.

    JAX divides the gradient of a maximum among ties, which costs more here than the convolutions.
    """
    return jax.nn.relu(reduce(jnp.maximum, parts))


@_max_relu.defjvp
def _max_relu_jvp(
    parts: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    out = _max_relu(*parts)
    tangent = jnp.zeros_like(out)
    for part, part_tangent in reversed(list(zip(parts, tangents, strict=True))):
        tangent = jnp.where(part == out, part_tangent, tangent)
    return out, jnp.where(out > 0, tangent, 0)


def _blocked_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves blocks without padding: [4 C_in, h, w, N] -> [4 C_out, h', w', N]."""
    window = (kernel.shape[0] + 1) // 2
    h, w = x.shape[1] - window + 1, x.shape[2] - window + 1
    windows = jnp.concatenate(
        [x[:, i : i + h, j : j + w] for i in range(window) for j in range(window)]
    )
    matrix = _block_kernel(kernel)
    return (matrix @ windows.reshape(len(windows), -1)).reshape(len(matrix), h, w, x.shape[3])


def _block_kernel(kernel: jax.Array) -> jax.Array:
    """Rearranges a kernel to a matrix [4 C_out, window * window * 4 C_in]."""
    k, _, c_in, c_out = kernel.shape
    window = (k + 1) // 2
    # One copy of the kernel per pixel of the output block, shifted by that pixel's offset.
    copies = [
        jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a in (0, 1) for b in (0, 1)
    ]
    matrix = jnp.stack(copies).reshape(4, window, 2, window, 2, c_in, c_out)
    return matrix.transpose(0, 6, 1, 3, 2, 4, 5).reshape(4 * c_out, window * window * 4 * c_in)
