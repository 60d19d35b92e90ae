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
      num_epochs: length of the schedule.
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
    if recipe.optimizer == "adam":
        return optax.adamw(rate, weight_decay=recipe.weight_decay, mask=_kernels), rate
    if recipe.optimizer == "muon":
        muon = optax.contrib.muon(
            rate,
            weight_decay=recipe.weight_decay,
            muon_weight_dimension_numbers=_as_matrices,
            consistent_rms=0.2,  # the usual size of Adam's steps, so that rates are comparable
        )
        return muon, rate
    raise ValueError(f"optimizer must be 'adam' or 'muon', got {recipe.optimizer!r}")


def _kernels(params: Pytree) -> Pytree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _as_matrices(params: Pytree) -> Pytree:
    """How Muon reads each kernel as a matrix: its last axis is the output."""
    return jax.tree.map(
        lambda leaf: (
            optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
            if leaf.ndim > 1
            else None
        ),
        params,
    )
