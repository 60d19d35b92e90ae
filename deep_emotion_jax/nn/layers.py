"""Building blocks of the network: input scaling, stages of convolutions, localization network."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, zip_longest

import jax
import jax.numpy as jnp
from flax import nnx

from deep_emotion_jax.nn.conv import ConvLayer, conv_stage, plain_stage

LOCALIZATION = ("figure", "port", "leaky")
LEAK = 0.1
"""Slope of the leaky ReLU for negative values."""
Initializer = Callable[..., jax.Array]

INITIALIZERS: dict[str, Initializer] = {
    "he": nnx.initializers.he_normal(),
    "gaussian": nnx.initializers.normal(0.05),  # paper, "Gaussian with std 0.05", as quoted
}


def standardize(images: jax.Array) -> jax.Array:
    """Shifts and scales each image [N, H, W, C] to mean 0 and standard deviation 1.

    This removes exposure and contrast, which do not depend on the expression. A constant image
    gives zeros. The paper does not specify an input scaling.
    """
    mean = images.mean((1, 2, 3), keepdims=True)
    deviation = images.std((1, 2, 3), keepdims=True)
    return (images - mean) / jnp.maximum(deviation, 1 / 255)


class ConvStage(nnx.Module):
    """Convolutions with ReLU between them, then a max-pool and ReLU; see `conv.conv_stage`."""

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        kernel_size: int = 3,
        pool: int = 2,
        padding: str = "VALID",
        residual: bool = False,
        batch_norm: bool = False,
        kernel_init: Initializer,
        rngs: nnx.Rngs,
    ):
        self.pool = pool
        self.padding = padding
        self.residual = residual
        self.convs = nnx.List(
            nnx.Conv(c_in, c_out, (kernel_size, kernel_size), kernel_init=kernel_init, rngs=rngs)
            for c_in, c_out in pairwise(channels)
        )
        self.norms = nnx.List(nnx.BatchNorm(c, rngs=rngs) for c in channels[1:] if batch_norm)

    def __call__(self, x: jax.Array, *, train: bool = False, plain: bool = False) -> jax.Array:
        """Maps [N, H, W, C] to [N, H', W', C_out], non-negative.

        `plain` uses XLA's convolution on every device.
        """
        layers = [
            ConvLayer(
                jnp.asarray(conv.kernel),
                jnp.asarray(conv.bias),
                norm and partial(norm, use_running_average=not train),
            )
            for conv, norm in zip_longest(self.convs, self.norms)
        ]
        stage = plain_stage if plain else conv_stage
        return stage(x, layers, self.pool, self.padding, self.residual)


class LocalizationNetwork(nnx.Module):
    """Predicts where to attend in a face, as an affine map theta.

    "figure" follows the paper's figure: conv 8, max-pool, ReLU, conv 10, max-pool, ReLU, FC 90-32,
    ReLU, linear to theta. The paper does not say how 48 x 48 becomes 90 = 3 x 3 x 10; SAME 3x3
    convolutions with 4x4 pools give exactly 48-12-3. "port" is the widely used PyTorch port: VALID
    7x7 and 5x5 kernels with 2x2 pools, FC 640-32. "leaky" is ours, for the wide network: "figure"
    with 16 and 32 channels and FC 288-48, followed by a leaky ReLU, whose units cannot die.

    Theta is initialized to the identity: last weights zero, bias (1, 0, 0, 0, 1, 0).

    Raises:
      ValueError: for an unknown variant.
    """

    def __init__(
        self,
        variant: str = "figure",
        *,
        width: float = 1.0,
        batch_norm: bool = False,
        kernel_init: Initializer = INITIALIZERS["he"],
        rngs: nnx.Rngs,
    ):
        if variant not in LOCALIZATION:
            raise ValueError(f"localization must be one of {LOCALIZATION}, got {variant!r}")
        sizes = (16, 32, 48) if variant == "leaky" else (8, 10, 32)
        first, second, hidden = (round(n * width) for n in sizes)
        self.leaky = variant == "leaky"
        stage = partial(ConvStage, batch_norm=batch_norm, kernel_init=kernel_init, rngs=rngs)
        if variant != "port":
            stages = [
                stage((1, first), pool=4, padding="SAME"),
                stage((first, second), pool=4, padding="SAME"),
            ]
            side = 3
        else:
            stages = [
                stage((1, first), kernel_size=7),
                stage((first, second), kernel_size=5),
            ]
            side = 8
        self.stages = nnx.List(stages)
        self.hidden = nnx.Linear(side * side * second, hidden, kernel_init=kernel_init, rngs=rngs)
        identity = jnp.asarray([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.theta = nnx.Linear(
            hidden,
            6,
            kernel_init=nnx.initializers.zeros,
            bias_init=lambda key, shape, dtype=jnp.float32: identity.astype(dtype),
            rngs=rngs,
        )

    def __call__(self, images: jax.Array, *, train: bool = False, plain: bool = False) -> jax.Array:
        """Maps images [N, 48, 48, 1] to theta [N, 2, 3] in normalized coordinates."""
        x = images
        for stage in self.stages:
            x = stage(x, train=train, plain=plain)
        x = self.hidden(x.reshape(x.shape[0], -1))
        x = jax.nn.leaky_relu(x, LEAK) if self.leaky else jax.nn.relu(x)
        return self.theta(x).reshape(-1, 2, 3)
