"""Reading and batching: every example once, order kept, fingerprints that notice changes."""

import jax
import numpy as np
import pytest

from deep_emotion_jax.data import Split, batch_indices, load_split


def source(count=10):
    return [
        {"image": np.full((48, 48, 1), i, np.uint8), "label": i % 7, "key": f"k{i}".encode()}
        for i in range(count)
    ]


def test_a_split_is_read_whole_and_in_order():
    split = load_split(source())
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], np.arange(10))
    np.testing.assert_array_equal(split.labels, np.arange(10) % 7)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int32
    assert split.keys == [f"k{i}" for i in range(10)]


def test_fingerprint_notices_every_part():
    split = load_split(source())
    again = load_split(source())
    assert split.fingerprint() == again.fingerprint()
    again.images[3, 5, 5] += 1
    assert split.fingerprint() != again.fingerprint()
    assert split.fingerprint() != split._replace(labels=split.labels + 1).fingerprint()
    assert split.fingerprint() != Split(split.images, split.labels, ["x"] * 10).fingerprint()


@pytest.mark.parametrize(("count", "batch"), [(100, 10), (101, 10), (7, 10), (28_709, 128)])
def test_an_epoch_takes_every_example_exactly_once(count, batch):
    steps = -(-count // batch)
    indices, weights = map(np.asarray, batch_indices(jax.random.key(0), count, steps, batch))
    assert indices.shape == weights.shape == (steps, batch)
    assert sorted(indices[weights > 0]) == list(range(count))
    sizes = weights.sum(1)
    assert sizes.max() - sizes.min() <= 1


def test_keys_decide_the_order():
    orders = [np.asarray(batch_indices(jax.random.key(k), 50, 5, 10)[0]) for k in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
