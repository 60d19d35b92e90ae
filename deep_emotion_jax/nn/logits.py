"""Networks as plain pytrees, and logits of any number of images."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deep_emotion_jax.nn.backend import micro_batch_size

Pytree = Any
Model = TypeVar("Model", bound=nnx.Module)


def split_model(model: nnx.Module) -> tuple[Pytree, Pytree]:
    """Returns a model's weights and its other state as nested dicts; `assemble` is the inverse."""
    _, *states = nnx.split(model, nnx.Param, ...)
    params, stats = map(nnx.to_pure_dict, states)
    return params, stats


def assemble(model: Model, params: Pytree, stats: Pytree) -> Model:
    """Returns a new model of the same structure with these weights and this other state."""
    graphdef, *states = nnx.split(model, nnx.Param, ...)
    for state, values in zip(states, (params, stats), strict=True):
        nnx.replace_by_pure_dict(state, values)
    return nnx.merge(graphdef, *states)


def make_logits(model: nnx.Module) -> Callable[[Pytree, Pytree, jax.Array], jax.Array]:
    """Returns a pure function (params, stats, images [N, H, W, C]) -> logits [N, K].

    See `batched_logits` for the images.
    """
    return lambda params, stats, images: batched_logits(assemble(model, params, stats), images)


def predict_logits(model: nnx.Module, images: np.ndarray) -> np.ndarray:
    """Returns logits [N, K] of images uint8 [N, H, W, C], or float in [0, 1].

    Compiles once per structure of the model and shape of the images.
    """
    return np.asarray(_program(*nnx.split(model), images))


def predict_mean(model: nnx.Module, views: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the logarithm of the mean probabilities [N, K] over views of the same images.

    Args:
      model: any network of this package.
      views: arrays [N, H, W, C] as for `predict_logits`, such as images and their mirror images.
    """
    logits = np.stack([predict_logits(model, view) for view in views])
    mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - np.log(len(logits))
    return np.asarray(mean)


@partial(jax.jit, static_argnums=0)
def _program(graphdef: nnx.GraphDef, state: nnx.State, images: jax.Array) -> jax.Array:
    return batched_logits(nnx.merge(graphdef, state), images)


def batched_logits(model: Any, images: jax.Array) -> jax.Array:
    """Returns logits [N, K] of images uint8 [N, H, W, C], or float in [0, 1].

    The images are evaluated in micro-batches; the last one is padded, and the logits of the padding
    are dropped.
    """
    scale = 255 if images.dtype == jnp.uint8 else 1
    size = micro_batch_size(min(len(images), 512))
    padding = -len(images) % size
    chunks = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    chunks = chunks.reshape(-1, size, *images.shape[1:])
    logits = jax.lax.map(lambda chunk: model(chunk.astype(jnp.float32) / scale), chunks)
    return logits.reshape(len(images) + padding, -1)[: len(images)]
