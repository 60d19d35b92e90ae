"""Optimizers and learning-rate schedules."""

from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

from deep_emotion_jax.training.config import Recipe

Pytree = Any


def make_optimizer(
    recipe: Recipe, num_epochs: int, steps: int
) -> tuple[optax.GradientTransformation, Callable]:
    """Returns the optimizer and the learning rate as a function of the step.

    Args:
      recipe: the settings.
      num_epochs: length of the schedule in epochs.
      steps: steps per epoch.

    Raises:
      ValueError: for an unknown schedule or optimizer.
    """
    if recipe.schedule == "constant":
        rate: Callable = optax.constant_schedule(recipe.learning_rate)
    elif recipe.schedule == "cosine":
        length = num_epochs * steps
        rate = optax.warmup_cosine_decay_schedule(
            0.0,
            recipe.learning_rate,
            warmup_steps=min(recipe.warmup_steps, length // 2),
            decay_steps=length,
        )
    else:
        raise ValueError(f"schedule must be 'constant' or 'cosine', got {recipe.schedule!r}")
    return _optimizer(recipe, rate), rate


def _optimizer(recipe: Recipe, rate: Callable) -> optax.GradientTransformation:
    if recipe.optimizer == "adam":
        chosen = optax.adamw(rate, weight_decay=recipe.weight_decay, mask=_kernels)
    elif recipe.optimizer == "sgd":
        decay = optax.add_decayed_weights(recipe.weight_decay, _kernels)
        chosen = optax.chain(decay, optax.sgd(rate, momentum=0.9, nesterov=True))
    elif recipe.optimizer == "muon":
        chosen = optax.contrib.muon(
            rate,
            weight_decay=recipe.weight_decay,
            muon_weight_dimension_numbers=_as_matrices,
            consistent_rms=0.2,  # the usual RMS of Adam's steps, so learning rates are comparable
        )
    else:
        raise ValueError(f"optimizer must be 'adam', 'sgd' or 'muon', got {recipe.optimizer!r}")
    if recipe.localization_rate == 1:
        return chosen
    slower = optax.masked(optax.scale(recipe.localization_rate), _in_localization)
    return optax.chain(chosen, slower)


def _in_localization(params: Pytree) -> Pytree:
    return {
        name: jax.tree.map(lambda _, inside=name == "localization": inside, part)
        for name, part in params.items()
    }


def _kernels(params: Pytree) -> Pytree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _as_matrices(params: Pytree) -> Pytree:
    """Tells Muon to flatten each kernel to a matrix whose columns are the last (output) axis."""
    return jax.tree.map(
        lambda leaf: (
            optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
            if leaf.ndim > 1
            else None
        ),
        params,
    )
