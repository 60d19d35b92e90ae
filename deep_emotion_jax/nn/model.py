"""The Deep-Emotion network (Minaee & Abdolrashidi, arXiv 1902.01019) as a Flax NNX module."""

from typing import Any, NamedTuple

import jax
from flax import nnx

from deep_emotion_jax.constants import IMAGE_SIZE
from deep_emotion_jax.nn.layers import (
    INITIALIZERS,
    ConvStage,
    LocalizationNetwork,
    standardize,
)
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample

ATTENTION = ("features", "middle", "image", "none")
DTYPES = ("float32", "bfloat16")


class Trunk(NamedTuple):
    """The convolutions of a network and the size of its classifier.

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


class DeepEmotion(nnx.Module):
    """Classifies the expression in a 48 x 48 grey face.

    The defaults are the network of the paper's figure, 47,657 parameters: conv 10, ReLU, conv 10,
    max-pool, ReLU, the same again, dropout, the affine sampler on the 9 x 9 x 10 features, FC
    810-50, ReLU, FC 50-7. The arguments set what the paper leaves open.

    Args:
      num_classes: number of logits.
      attention: what the sampler is applied to: the "features" (the paper's figure), the input
        "image" (the paper's text), the "middle" (the output of half of the trunk's stages), or
        "none" (no localization network: the ablation).
      localization: "figure", "port" or "leaky", see `LocalizationNetwork`.
      trunk: "figure" (the paper's), "wide" or "residual" (ours), see `TRUNKS`.
      batch_norm: BatchNorm after every convolution (the figure has none).
      width: factor on all channel and hidden sizes.
      dropout: rate after the features, in training only (the paper gives none).
      init: "he", or "gaussian" with standard deviation 0.05 (as quoted from the paper).
      dtype: of the convolutions, "float32" or "bfloat16"; weights and logits are float32.

    Attributes:
      attended: number of stages before the sampler, 0 for the image; None without a sampler.
      span: side of the part of the face that the sampled map covers, as a share of the face's side:
        36 / 48 for the figure's trunk, whose 9 x 9 features have cells of 4 x 4 pixels.

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

        With `train=True`, dropout draws from `dropout_key` and BatchNorm, if any, uses the
        statistics of the batch and updates the running ones. `plain` uses XLA's convolution on
        every device, for export; otherwise the form of the convolutions depends on the device.

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
        """Maps images [N, 48, 48, 1], in [0, 1], to the classifier's input, non-negative [N, 810].

        This is the flattened 9 x 9 x 10 map of the convolutions and the sampler; other trunks and
        widths have other sizes. The other arguments are those of `__call__`.

        Raises:
          ValueError: for images of another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 1):
            raise ValueError(f"images must be [N, 48, 48, 1], got {list(images.shape)}")
        x = standardize(images)
        if self.dtype == "bfloat16":  # otherwise x keeps the images' precision, such as float64
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
        """Predicts the affine map [N, 2, 3] for images [N, 48, 48, 1] in [0, 1].

        Raises:
          ValueError: if the model has no localization network.
        """
        if self.localization is None:
            raise ValueError("a model with attention='none' predicts no theta")
        return self.localization(standardize(images), plain=plain)

    def _attend(self, x: jax.Array, face: jax.Array, train: bool, plain: bool) -> jax.Array:
        """Samples x on the grid predicted from the standardized face."""
        assert self.localization is not None
        theta = self.localization(face, train=train, plain=plain)
        return grid_sample(x, affine_grid(theta, (x.shape[1], x.shape[2])))


def count_parameters(model: nnx.Module) -> int:
    """Returns the number of trainable parameters of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
