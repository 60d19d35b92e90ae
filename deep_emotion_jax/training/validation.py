"""Validation after every epoch, and the choice of weights."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from deep_emotion_jax.nn.logits import assemble, make_logits
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.epoch import TrainState, init_state, smoothed_cross_entropy
from deep_emotion_jax.training.selection import Score, is_better


class RunState(NamedTuple):
    """The state of all runs: training state, weights chosen so far, and number of restarts.

    `selection.is_better` chooses the weights. Every array has a leading axis of runs.
    """

    train: TrainState
    best_params: Any
    best_stats: Any
    best_accuracy: jax.Array
    best_loss: jax.Array
    best_epoch: jax.Array
    restarts: jax.Array


def start_runs(
    models: Sequence[nnx.Module],
    optimizer: optax.GradientTransformation,
    restarts: Sequence[int] | np.ndarray,
) -> RunState:
    """Returns the state of all runs before their first epoch, given their numbers of restarts."""
    starts = [init_state(model, optimizer) for model in models]
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    return RunState(
        start,
        start.params,
        start.stats,
        best_accuracy=jnp.full(len(models), -1.0),
        best_loss=jnp.full(len(models), jnp.inf),
        best_epoch=jnp.zeros(len(models), jnp.int32),
        restarts=jnp.asarray(restarts, jnp.int32),
    )


def make_validation(model: nnx.Module) -> Callable[..., tuple[RunState, jax.Array, jax.Array]]:
    """Makes the program that scores one run's averaged weights and keeps them if better."""
    program = make_logits(model)

    def validate(state: RunState, index, count, epoch, images, labels):
        logits = program(state.train.ema, state.train.stats, images[index])
        real = jnp.arange(len(index)) < count
        accuracy = jnp.sum(real * (logits.argmax(-1) == labels[index])) / count
        loss = jnp.sum(real * smoothed_cross_entropy(logits, labels[index], 0.0)) / count
        better = is_better(
            count, Score(accuracy, loss), Score(state.best_accuracy, state.best_loss)
        )
        newest = state._replace(
            best_params=state.train.ema,
            best_stats=state.train.stats,
            best_accuracy=accuracy,
            best_loss=loss,
            best_epoch=epoch,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), newest[1:], state[1:])
        return RunState(state.train, *kept), accuracy, loss

    return validate


def best_models(models: Sequence[DeepEmotion], state: RunState) -> list[DeepEmotion]:
    """Returns the model of every run with the chosen weights."""

    def best(i: int) -> tuple[Any, Any]:
        return jax.tree.map(lambda leaf: leaf[i], (state.best_params, state.best_stats))

    return [assemble(model, *best(i)) for i, model in enumerate(models)]
