"""Shuffled batches of an epoch, as indices."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns the number of batches for `count` examples."""
    return math.ceil(count / batch_size)


def batch_indices(
    key: jax.Array, count: int | jax.Array, size: int, steps: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Draws one epoch's shuffled batches, in which every example counts exactly once.

    The sizes of the `steps` batches differ by at most one, so there is no small last batch. A batch
    with fewer than `batch_size` examples is padded with others of weight zero.

    Args:
      key: random key of the order.
      count: number of examples, at most steps * batch_size; may be traced, so that different
        counts share one compiled program.
      size: upper bound of `count`.
      steps: number of batches.
      batch_size: places in a batch.

    Returns:
      indices int32 [steps, batch_size] below `count`, and weights float32 of the same shape.
    """
    # Sorts indices of `count` and above to the end.
    noise = jnp.where(jnp.arange(size) < count, jax.random.uniform(key, (size,)), 2)
    order = jnp.argsort(noise)
    even, rest = count // steps, count % steps
    bounds = jnp.arange(steps + 1) * even + jnp.minimum(jnp.arange(steps + 1), rest)
    places = bounds[:-1, None] + jnp.arange(batch_size)
    return order[places % count], (places < bounds[1:, None]).astype(jnp.float32)


def step_examples(
    key: jax.Array, index: np.ndarray, count: int, batch_size: int, step: int
) -> np.ndarray:
    """Recomputes which examples one step of an epoch trained on.

    Args:
      key: the epoch's key, as passed to the epoch program (`epoch.make_epoch`).
      index: int [A], the training examples, padded beyond `count`.
      count: number of training examples.
      batch_size: as in the recipe.
      step: number of the step in the epoch, from 0.

    Returns:
      int, the entries of `index` in the step's batch, in order.
    """
    order_key, _ = jax.random.split(key)  # as in `epoch.plan_epoch`
    steps = steps_per_epoch(len(index), batch_size)
    order, weights = batch_indices(order_key, count, len(index), steps, batch_size)
    return np.asarray(index)[np.asarray(order[step])[np.asarray(weights[step]) > 0]]
