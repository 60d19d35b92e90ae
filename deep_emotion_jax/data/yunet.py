"""YuNet, a face detector of 53,104 parameters, as plain functions of JAX.

Wu, Peng & Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023.
The weights are OpenCV's face_detection_yunet_2023mar.onnx (MIT licence), converted by
tests/golden/make_yunet.py; yunet.md beside them is the model card.
"""

import functools
from collections.abc import Mapping
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from safetensors.numpy import load

STRIDES = (8, 16, 32)
# Channels of a head: face or not, quality of the box, box, five landmarks.
SCORE, FIT, BOX, LANDMARKS = 0, 1, slice(2, 6), slice(6, 16)

# Arrays of a unit: a 1 x 1 convolution, then a depthwise 3 x 3 convolution.
PARTS = ("point.kernel", "point.bias", "depth.kernel", "depth.bias")

Weights = Mapping[str, jax.Array | np.ndarray]


@functools.cache
def weights() -> dict[str, np.ndarray]:
    """Return the packaged weights by layer name."""
    file = resources.files("deep_emotion_jax.data") / "yunet.safetensors"
    return load(file.read_bytes())


def detect(weights: Weights, pictures: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Predict a score, a box and landmarks for every place in the pictures.

    Args:
      weights: from `weights`.
      pictures: uint8 or float [N, H, W, 3], RGB in [0, 255]; H and W are multiples of 32.

    Returns:
      For A = H W (1/64 + 1/256 + 1/1024) places: scores [N, A] in [0, 1]; boxes [N, A, 4] as left,
      top, right, bottom in pixels; landmarks [N, A, 5, 2], x and y in pixels of the right and left
      eye (of the person: the right eye is on the left), nose, right and left corner of the mouth.
    """
    scores, boxes, landmarks = [], [], []
    for stride, head in zip(STRIDES, features(weights, pictures), strict=True):
        n, rows, columns, channels = head.shape
        corners = stride * np.stack(
            np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1
        ).reshape(-1, 2)
        head = head.reshape(n, rows * columns, channels)
        score = jax.nn.sigmoid(head[..., SCORE]) * jax.nn.sigmoid(head[..., FIT])
        scores.append(jnp.sqrt(score))
        offset, log_size = jnp.split(head[..., BOX], 2, axis=-1)
        centre, half = corners + stride * offset, stride / 2 * jnp.exp(log_size)
        boxes.append(jnp.concatenate([centre - half, centre + half], axis=-1))
        points = head[..., LANDMARKS].reshape(n, -1, 5, 2)
        landmarks.append(corners[:, None] + stride * points)
    return (
        jnp.concatenate(scores, axis=1),
        jnp.concatenate(boxes, axis=1),
        jnp.concatenate(landmarks, axis=1),
    )


def features(weights: Weights, pictures: jax.Array) -> list[jax.Array]:
    """Return the raw output of the heads, [N, H / stride, W / stride, 16] for each of `STRIDES`."""

    def unit(name: str, x: jax.Array) -> jax.Array:
        return _unit(x, *(weights[f"{name}.{part}"] for part in PARTS))

    def units(name: str, x: jax.Array) -> jax.Array:
        for i in range(2):
            x = jax.nn.relu(unit(f"{name}.{i}", x))
        return x

    x = lax.conv_general_dilated(
        pictures.astype(jnp.float32),
        jnp.asarray(weights["stem.kernel"]),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.relu(x + weights["stem.bias"])
    x = jax.nn.relu(unit("backbone.0", x))
    x = units("backbone.2", units("backbone.1", _max_pool(x)))
    fine = units("backbone.3", _max_pool(x))
    middle = units("backbone.4", _max_pool(fine))
    coarse = units("backbone.5", _max_pool(middle))
    coarse = jax.nn.relu(unit("neck.2", coarse))
    middle = jax.nn.relu(unit("neck.1", middle + _double(coarse)))
    fine = jax.nn.relu(unit("neck.0", fine + _double(middle)))
    return [unit(f"heads.{i}", level) for i, level in enumerate((fine, middle, coarse))]


@jax.jit  # Traced once for all units of one shape.
def _unit(
    x: jax.Array, point: jax.Array, point_bias: jax.Array, depth: jax.Array, depth_bias: jax.Array
) -> jax.Array:
    return _depthwise(x @ point + point_bias, depth) + depth_bias


def _depthwise(x: jax.Array, kernel: jax.Array | np.ndarray) -> jax.Array:
    """Convolve each channel with its own kernel [3, 3, C].

    Written as nine shifted products: XLA's grouped convolution takes 20 times as long on a CPU.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = (
        x[:, row : row + height, column : column + width] * kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    return functools.reduce(jnp.add, shifted)


def _max_pool(x: jax.Array) -> jax.Array:
    """Max-pool 2 x 2; slices take a quarter of the time of `lax.reduce_window` on a CPU."""
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _double(x: jax.Array) -> jax.Array:
    """Double height and width by repeating pixels."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
