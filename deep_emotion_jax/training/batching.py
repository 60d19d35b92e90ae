"""Shuffled batches of an epoch, as indices: every example counts exactly once."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches for `count` examples."""
    return math.ceil(count / batch_size)


def batch_indices(
    key: jax.Array, count: int | jax.Array, size: int, steps: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """One epoch's shuffled batches; every example counts exactly once.

    The sizes of the `steps` batches differ by at most one, so there is no small last batch. A batch
    with fewer than `batch_size` examples is padded with others of weight zero.

    Args:
      key: of the order.
      count: number of examples, at most steps * batch_size; may be traced, so that programs of
        different counts share one program.
      size: the largest count there may be.
      steps: number of batches.
      batch_size: places in a batch.

    Returns:
      indices int32 [steps, batch_size] below `count`, and weights float32 of the same shape.
    """
    # Indices beyond `count` come last.
    noise = jnp.where(jnp.arange(size) < count, jax.random.uniform(key, (size,)), 2)
    order = jnp.argsort(noise)
    even, rest = count // steps, count % steps
    bounds = jnp.arange(steps + 1) * even + jnp.minimum(jnp.arange(steps + 1), rest)
    places = bounds[:-1, None] + jnp.arange(batch_size)
    return order[places % count], (places < bounds[1:, None]).astype(jnp.float32)


def step_examples(
    key: jax.Array, index: np.ndarray, count: int, batch_size: int, step: int
) -> np.ndarray:
    """The examples of one step of an epoch, computed again for a report.

    Args:
      key: the epoch's key, as given to the epoch program (`epoch.make_epoch`).
      index: int [A], the training examples, padded beyond `count`.
      count: number of training examples.
      batch_size: of the recipe.
      step: of the epoch, from 0.

    Returns:
      int, those entries of `index` that were in the step's batch, in its order.
    """
    order_key, _ = jax.random.split(key)  # the other one is for augmentation and dropout
    steps = steps_per_epoch(len(index), batch_size)
    order, weights = batch_indices(order_key, count, len(index), steps, batch_size)
    return np.asarray(index)[np.asarray(order[step])[np.asarray(weights[step]) > 0]]
