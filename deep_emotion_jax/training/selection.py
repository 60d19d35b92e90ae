"""Rules for choosing the weights of a run, and for detecting dead runs.

Weights: with at least 500 validation images, those of the best epoch; with fewer, the final moving
average. Accuracy on 23 images varies by 10 points between equally good epochs, so the best epoch
would be chosen by chance: on JAFFE this cost 10 to 33 points (docs/small_data.md).

Dead runs: a network of 47,657 weights sometimes dies within its first steps. Its loss then stays at
that of the best constant prediction however long it trains; another seed helps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEAST_VALIDATION = 500
"""Fewest validation images for choosing the best epoch; two standard errors are 4.5 points."""

START_STEPS = 500
"""Number of steps after which a run that has learned nothing counts as dead."""

WINDOW_STEPS = 100
"""Number of last steps of these over which loss and accuracy are averaged."""

MOST_RESTARTS = 3
SEED_STRIDE = 1_000_000


class Score(NamedTuple):
    """Accuracy and mean cross-entropy, as numbers or arrays of one shape."""

    accuracy: Any
    loss: Any


def is_better(count: jax.Array | int, new: Score, best: Score) -> jax.Array:
    """Returns whether new weights replace those kept so far: bool, in the shape of the scores.

    Args:
      count: number of validation images. Below `LEAST_VALIDATION`, the newest weights are kept.
      new: scores of the newest weights.
      best: scores of the weights kept so far.
    """
    ahead = (new.accuracy > best.accuracy) | (
        (new.accuracy == best.accuracy) & (new.loss < best.loss)
    )
    return ahead | (jnp.asarray(count) < LEAST_VALIDATION)


def describe_rule(count: int) -> str:
    """Describes how weights are chosen with `count` validation images."""
    if count < LEAST_VALIDATION:
        return (
            f"the final averaged weights: {count} validation images are fewer than "
            f"{LEAST_VALIDATION}, too few to choose an epoch"
        )
    return f"the epoch with the best accuracy on {count} validation images, ties to the lower loss"


def start_epoch(steps_per_epoch: int, num_epochs: int) -> int | None:
    """Returns the epoch after which dead runs are restarted; None in shorter trainings."""
    epoch = -(-START_STEPS // steps_per_epoch)
    return epoch if epoch < num_epochs else None


def is_dead(score: Score, labels: np.ndarray, smoothing: float, classes: int) -> bool:
    """Returns whether a run is no better than the best constant prediction.

    Args:
      score: training accuracy and training loss (with label smoothing).
      labels: int [A], the labels of the run's training images.
      smoothing: label smoothing of the recipe.
      classes: number of classes.
    """
    shares = np.bincount(labels, minlength=classes) / len(labels)
    targets = (1 - smoothing) * shares + smoothing / classes
    constant = -np.sum(targets * np.log(np.maximum(targets, 1e-12)))
    return bool(score.accuracy < shares.max() + 0.05 and score.loss > constant - 0.01)


def restart_seed(seed: int, restarts: int) -> int:
    """Returns the seed of a run after a number of restarts."""
    return (seed + SEED_STRIDE * restarts) % 2**31
