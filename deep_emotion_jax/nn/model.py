"""The Deep-Emotion network (Minaee & Abdolrashidi, arXiv 1902.01019) as Flax NNX modules."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from deep_emotion_jax.constants import IMAGE_SIZE
from deep_emotion_jax.nn.conv import ConvLayer, conv_stage, plain_stage
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample

ATTENTION = ("features", "middle", "image", "none")
LOCALIZATION = ("figure", "port", "leaky")
DTYPES = ("float32", "bfloat16")
LEAK = 0.1
"""Slope of the leaky ReLU for negative values."""
Initializer = Callable[..., jax.Array]


class Trunk(NamedTuple):
    """The convolutions between the face and the classifier.

    Attributes:
      stages: channels of the convolutions of each stage; a stage ends with a 2x2 max-pool.
      padding: of every convolution, "VALID" or "SAME".
      hidden: size of the fully connected layer after the features.
      residual: whether each stage adds its first convolution's output to its last one's.
    """

    stages: tuple[tuple[int, ...], ...]
    padding: str
    hidden: int
    residual: bool = False


TRUNKS = {
    "figure": Trunk(((10, 10), (10, 10)), "VALID", 50),  # the paper's: 9 x 9 x 10 features
    # Ours: 3 x 3 x 192 features.
    "wide": Trunk(((24, 24), (48, 48), (96, 96, 96), (192, 192)), "SAME", 128),
    # Ours, trained on a GPU: 3 x 3 x 192 features, one skip connection per stage.
    "residual": Trunk(((32, 32), (64, 64), (128, 128, 128), (192, 192)), "SAME", 96, True),
}

INITIALIZERS: dict[str, Initializer] = {
    "he": nnx.initializers.he_normal(),
    "gaussian": nnx.initializers.normal(0.05),  # paper, "Gaussian with std 0.05", as quoted
}


def standardize(images: jax.Array) -> jax.Array:
    """Shifts and scales each image [N, H, W, C] to mean 0 and standard deviation 1.

    Takes out exposure and contrast, which say nothing about the expression. A flat image gives
    zeros. The paper names no input scaling: our choice.
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
    """Looks at the face and says where to attend: an affine map theta.

    "figure" is the paper's drawing: conv 8, max-pool, ReLU, conv 10, max-pool, ReLU, FC 90-32,
    ReLU, linear to theta. The paper does not say how 48 x 48 becomes 90 = 3 x 3 x 10; SAME 3x3
    convolutions with 4x4 pools give exactly 48-12-3. "port" is the widely used PyTorch port: VALID
    7x7 and 5x5 kernels with 2x2 pools, FC 640-32. "leaky" is ours for the wide network: "figure"
    with 16 and 32 channels, FC 288-48 and leaky ReLU there, whose units cannot die.

    Theta starts at the identity: last weights zero, bias (1, 0, 0, 0, 1, 0).
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
        """Maps images [N, 48, 48, 1] to theta [N, 2, 3] in normalised coordinates."""
        x = images
        for stage in self.stages:
            x = stage(x, train=train, plain=plain)
        x = self.hidden(x.reshape(x.shape[0], -1))
        x = jax.nn.leaky_relu(x, LEAK) if self.leaky else jax.nn.relu(x)
        return self.theta(x).reshape(-1, 2, 3)


class DeepEmotion(nnx.Module):
    """Names the expression in a 48 x 48 grey face.

    The defaults are the network of the paper's figure, 47,657 parameters: conv 10, ReLU, conv 10,
    max-pool, ReLU, the same again, dropout, the affine sampler on the 9 x 9 x 10 features, FC
    810-50, ReLU, FC 50-7. What the paper leaves open is an argument.

    Args:
      num_classes: number of logits.
      attention: where the sampler works: on the "features" (the paper's figure), on the input
        "image" (the paper's text), in the "middle" (after half of the trunk's stages), or "none"
        (no localization network: the ablation).
      localization: "figure", "port" or "leaky", see `LocalizationNetwork`.
      trunk: "figure", or a network of our own on the same idea: "wide" or "residual", see `TRUNKS`.
      batch_norm: BatchNorm after every convolution (the figure has none).
      width: factor on all channel and hidden sizes.
      dropout: rate after the features, in training only (the paper gives none: our choice).
      init: "he", or "gaussian" with standard deviation 0.05 (as the paper is quoted).
      dtype: of the convolutions, "float32" or "bfloat16"; weights and logits are float32.

    Attributes:
      attended: number of stages before the sampler: 0 on the image; None without one.
      span: side of what the sampled map stands for, as a share of the face's: the 9 x 9 features of
        the figure's trunk have cells of 4 x 4 pixels, 36 of 48.

    Raises:
      ValueError: for an unknown attention, localization, trunk, init or dtype.
    """

    def __init__(
        self,
        num_classes: int = 7,
        *,
        attention: str = "features",
        localization: str = "figure",
        trunk: str = "figure",
        batch_norm: bool = False,
        width: float = 1.0,
        dropout: float = 0.2,
        init: str = "he",
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if attention not in ATTENTION:
            raise ValueError(f"attention must be one of {ATTENTION}, got {attention!r}")
        if init not in INITIALIZERS:
            raise ValueError(f"init must be one of {tuple(INITIALIZERS)}, got {init!r}")
        if trunk not in TRUNKS:
            raise ValueError(f"trunk must be one of {tuple(TRUNKS)}, got {trunk!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {DTYPES}, got {dtype!r}")
        kernel_init = INITIALIZERS[init]
        stages, padding, hidden, residual = TRUNKS[trunk]
        hidden = round(hidden * width)
        shared: dict[str, Any] = {
            "batch_norm": batch_norm,
            "kernel_init": kernel_init,
            "rngs": rngs,
        }
        self.attention = attention
        self.dtype = dtype
        places = {"image": 0, "middle": len(stages) // 2, "features": len(stages)}
        self.attended = places.get(attention)
        self.span = 1.0
        built: list[ConvStage] = []
        side, before = IMAGE_SIZE, 1
        for stage in stages:
            channels = [round(c * width) for c in stage]
            built.append(
                ConvStage((before, *channels), padding=padding, residual=residual, **shared)
            )
            before = channels[-1]
            side = (side - (2 * len(channels) if padding == "VALID" else 0)) // 2
            if self.attended == len(built):
                self.span = side * 2 ** len(built) / IMAGE_SIZE
        self.stages = nnx.List(built)
        self.dropout = nnx.Dropout(dropout)
        self.localization = (
            None
            if attention == "none"
            else LocalizationNetwork(localization, width=width, **shared)
        )
        self.fc1 = nnx.Linear(side * side * before, hidden, kernel_init=kernel_init, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, num_classes, kernel_init=kernel_init, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        dropout_key: jax.Array | None = None,
        plain: bool = False,
    ) -> jax.Array:
        """Maps images [N, 48, 48, 1], in [0, 1], to logits [N, num_classes].

        Evaluation is the default. With `train=True`, dropout draws from `dropout_key` and
        BatchNorm, if any, uses and updates the statistics of the batch. `plain` gives one program
        for all devices, for export; otherwise the form of the convolutions depends on the device.

        Raises:
          ValueError: for images of another shape.
        """
        x = self.features(images, train=train, dropout_key=dropout_key, plain=plain)
        return self.fc2(jax.nn.relu(self.fc1(x)))

    def features(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        dropout_key: jax.Array | None = None,
        plain: bool = False,
    ) -> jax.Array:
        """What the classifier sees of images [N, 48, 48, 1] in [0, 1]: non-negative [N, 810].

        The convolutions' 9 x 9 x 10 map, resampled where the network attends; other trunks and
        widths have other sizes. The other arguments are as for
        the logits.

        Raises:
          ValueError: for images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 1):
            raise ValueError(f"images must be [N, 48, 48, 1], got {list(images.shape)}")
        x = standardize(images)
        if self.dtype == "bfloat16":  # else the images' own precision, which may be float64
            x = x.astype(self.dtype)
        face = x
        if self.attended == 0:
            x = self._attend(x, face, train, plain)
        for i, stage in enumerate(self.stages, 1):
            x = stage(x, train=train, plain=plain)
            if i == len(self.stages):
                x = self.dropout(x, deterministic=not train, rngs=dropout_key)
            if i == self.attended:
                x = self._attend(x, face, train, plain)
        return x.reshape(x.shape[0], -1)

    def theta(self, images: jax.Array, *, plain: bool = False) -> jax.Array:
        """The affine map [N, 2, 3] the localization network gives for images in [0, 1].

        Raises:
          ValueError: if the model has no localization network.
        """
        if self.localization is None:
            raise ValueError("this model has attention='none': it predicts no theta")
        return self.localization(standardize(images), plain=plain)

    def _attend(self, x: jax.Array, face: jax.Array, train: bool, plain: bool) -> jax.Array:
        """Samples x where the localization network, looking at the standardised face, says."""
        assert self.localization is not None
        theta = self.localization(face, train=train, plain=plain)
        return grid_sample(x, affine_grid(theta, (x.shape[1], x.shape[2])))


def count_parameters(model: nnx.Module) -> int:
    """Number of trainable numbers in a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
