"""Measures whether the attention helps: accuracy with each face's own theta and with others.

    print(theta_accuracies(model, images, labels))

If accuracy is the same with one theta for all faces, the localization network has no effect.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deep_emotion_jax.nn.backend import micro_batch_size
from deep_emotion_jax.nn.model import DeepEmotion

THETAS = ("own", "mean", "others", "identity")
"""Each face's own theta; the mean theta; the theta of the previous face; the identity."""


class _Constant(nnx.Module):
    """Replaces a localization network and returns a given theta."""

    def __init__(self, theta: jax.Array):
        self.theta = nnx.data(theta)

    def __call__(self, images: jax.Array, *, train: bool = False, plain: bool = False) -> jax.Array:
        return self.theta


def theta_accuracies(
    model: DeepEmotion, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the accuracy for each of `THETAS`.

    Args:
      model: a network with a sampler.
      images: uint8 [N, 48, 48, 1].
      labels: int [N].

    Raises:
      ValueError: if the model has no localization network.
    """
    graph, state = nnx.split(model)
    own = np.concatenate([np.asarray(_theta(graph, state, part)) for part in _parts(images)])
    identity = np.broadcast_to(np.eye(2, 3, dtype=np.float32), own.shape)
    mean = np.broadcast_to(own.mean(0), own.shape)
    thetas = dict(zip(THETAS, (own, mean, np.roll(own, 1, axis=0), identity), strict=True))
    return {
        name: float(np.mean(_predictions(graph, state, images, theta) == labels))
        for name, theta in thetas.items()
    }


def _parts(array: np.ndarray) -> list[np.ndarray]:
    size = micro_batch_size(512)
    return [array[i : i + size] for i in range(0, len(array), size)]


def _predictions(graph: Any, state: Any, images: np.ndarray, theta: np.ndarray) -> np.ndarray:
    parts = zip(_parts(images), _parts(theta), strict=True)
    return np.concatenate([np.asarray(_classes(graph, state, *part)) for part in parts])


@partial(jax.jit, static_argnums=0)
def _theta(graph: Any, state: Any, images: jax.Array) -> jax.Array:
    return nnx.merge(graph, state).theta(images.astype(jnp.float32) / 255)


@partial(jax.jit, static_argnums=0)
def _classes(graph: Any, state: Any, images: jax.Array, theta: jax.Array) -> jax.Array:
    model = nnx.merge(graph, state)
    model.localization = _Constant(theta)
    return model(images.astype(jnp.float32) / 255).argmax(-1)
