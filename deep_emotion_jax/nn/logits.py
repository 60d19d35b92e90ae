"""Networks as plain pytrees, and logits of any number of images."""

from collections.abc import Callable
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
    """Returns a model's weights and its other state as nested dicts; undone by `assemble`."""
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
    """The evaluation program: (params, stats, images uint8 or float [N, H, W, C]) -> logits [N, K].

    uint8 images are scaled to [0, 1]. A micro-batch is evaluated at a time; the last one is padded,
    and the logits of the padding are dropped, so every image counts exactly once.
    """
    return lambda params, stats, images: batched_logits(assemble(model, params, stats), images)


def predict_logits(model: nnx.Module, images: np.ndarray, *, flip: bool = False) -> np.ndarray:
    """Logits [N, K] of images uint8 [N, H, W, C], or float in [0, 1].

    Compiled once for each structure of a model and shape of the images, whatever the weights.

    Args:
      model: any network of this package.
      images: faces.
      flip: average the probabilities of each face and its mirror image; the result is the
        logarithm of the means.
    """
    program = partial(_program, *nnx.split(model))
    logits = program(images)
    if flip:
        both = jnp.stack([logits, program(images[:, :, ::-1])])
        logits = jax.nn.logsumexp(jax.nn.log_softmax(both), axis=0)
    return np.asarray(logits)


@partial(jax.jit, static_argnums=0)
def _program(graphdef: nnx.GraphDef, state: nnx.State, images: jax.Array) -> jax.Array:
    return batched_logits(nnx.merge(graphdef, state), images)


def batched_logits(model: Any, images: jax.Array) -> jax.Array:
    """Returns logits [N, K] of images uint8 or float [N, H, W, C], a micro-batch at a time."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    size = micro_batch_size(min(len(images), 512))
    padding = -len(images) % size
    chunks = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    chunks = chunks.reshape(-1, size, *images.shape[1:])
    logits = jax.lax.map(lambda chunk: model(chunk.astype(jnp.float32) / scale), chunks)
    return logits.reshape(len(images) + padding, -1)[: len(images)]
