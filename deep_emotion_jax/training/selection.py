"""Which weights a training keeps, and which starts have failed.

Weights: with at least 500 validation images, those of the best epoch; with fewer, the final moving
average. The accuracy on 23 images moves by 10 points between equally good epochs, so their best
epoch is chosen by chance: on JAFFE it cost 10 to 33 points (docs/small_data.md).

Starts: a network of 47,657 weights sometimes dies within its first steps. Its loss then stays at
that of the best constant prediction, whatever the number of steps, and another seed is the remedy.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEAST_VALIDATION = 500
"""Validation images from which on the best epoch is chosen: two standard errors are 4.5 points."""

START_STEPS = 500
"""Steps after which a run has learned something, or is dead."""

WINDOW_STEPS = 100
"""The last steps before that, over which its loss and accuracy are averaged."""

MOST_RESTARTS = 3
SEED_STRIDE = 1_000_000


class Score(NamedTuple):
    """Accuracy and mean cross-entropy, numbers or arrays of one shape."""

    accuracy: Any
    loss: Any


def is_better(count: jax.Array | int, new: Score, best: Score) -> jax.Array:
    """Whether an epoch's weights replace those kept so far: bool, of the scores' shape.

    Args:
      count: validation images. Below `LEAST_VALIDATION` the newest weights are always kept.
      new: scores of the newest weights.
      best: scores of the weights kept so far.
    """
    ahead = (new.accuracy > best.accuracy) | (
        (new.accuracy == best.accuracy) & (new.loss < best.loss)
    )
    return ahead | (jnp.asarray(count) < LEAST_VALIDATION)


def describe_rule(count: int) -> str:
    """Returns how the weights were chosen on so many validation images, for reports."""
    if count < LEAST_VALIDATION:
        return (
            f"the final averaged weights: {count} validation images are fewer than "
            f"{LEAST_VALIDATION}, too few to choose an epoch"
        )
    return f"the epoch with the best accuracy on {count} validation images, ties to the lower loss"


def start_epoch(steps_per_epoch: int, num_epochs: int) -> int | None:
    """Returns the epoch after which dead starts are looked for; None in shorter trainings."""
    epoch = -(-START_STEPS // steps_per_epoch)
    return epoch if epoch < num_epochs else None


def is_dead(score: Score, labels: np.ndarray, smoothing: float, classes: int) -> bool:
    """Whether a run has learned nothing: no better than the best constant prediction.

    Args:
      score: on training images while training, the loss with label smoothing.
      labels: int [A], of the run's training images.
      smoothing: label smoothing of the recipe.
      classes: number of classes.
    """
    shares = np.bincount(labels, minlength=classes) / len(labels)
    targets = (1 - smoothing) * shares + smoothing / classes
    constant = -np.sum(targets * np.log(np.maximum(targets, 1e-12)))
    return bool(score.accuracy < shares.max() + 0.05 and score.loss > constant - 0.01)


def restart_seed(seed: int, restarts: int) -> int:
    """Returns the seed of a run that has been started anew so many times."""
    return (seed + SEED_STRIDE * restarts) % 2**31
