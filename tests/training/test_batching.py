"""Batches: an epoch contains every example exactly once, in an order that depends on the key."""

import jax
import numpy as np
import pytest

from deep_emotion_jax.training.batching import batch_indices, step_examples


@pytest.mark.parametrize(
    ("count", "size", "batch"),
    [(100, 100, 10), (101, 130, 10), (7, 7, 10), (7, 30, 10), (28_709, 28_709, 128)],
)
def test_an_epoch_contains_every_example_exactly_once(count, size, batch):
    steps = -(-size // batch)
    key = jax.random.key(0)
    indices, weights = map(np.asarray, batch_indices(key, count, size, steps, batch))
    assert indices.max() < count
    assert indices.shape == weights.shape == (steps, batch)
    assert sorted(indices[weights > 0]) == list(range(count))
    sizes = weights.sum(1)
    assert sizes.max() - sizes.min() <= 1


def test_the_order_depends_on_the_key():
    orders = [np.asarray(batch_indices(jax.random.key(k), 50, 50, 5, 10)[0]) for k in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_the_examples_of_a_step_are_those_of_its_batch():
    """A fold of 21, padded to 30, in batches of 8; test_trajectory.py tests the key."""
    fold = np.resize(np.arange(100, 121), 30)
    key = jax.random.key(5)
    chosen = [step_examples(key, fold, 21, 8, step) for step in range(4)]
    assert sorted(np.concatenate(chosen)) == list(range(100, 121))
    assert [len(batch) for batch in chosen] == [6, 5, 5, 5]
