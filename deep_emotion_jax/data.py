"""From a prepared TFDS dataset to arrays: read once with Grain, kept small, checked."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np


class Split(NamedTuple):
    """One split of a dataset, in memory.

    Attributes:
      images: uint8 [N, 48, 48, 1].
      labels: int32 [N].
      keys: the N example keys; folds and random splits are functions of these.
    """

    images: np.ndarray
    labels: np.ndarray
    keys: Sequence[str]

    def fingerprint(self) -> str:
        """SHA-256 of keys, labels and pixels: the same data gives the same string anywhere."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels.astype("<i4")):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update("\n".join(self.keys).encode())
        return digest.hexdigest()


def load_split(source: Any) -> Split:
    """Reads all of a random-access source, such as a TFDS `as_data_source(split=...)`.

    Args:
      source: `len` and indexing; examples hold `image` uint8 [48, 48, 1], `label` and `key`.

    Returns:
      The split, in the source's order.
    """
    dataset = grain.MapDataset.source(source).map(
        lambda example: (example["image"], example["label"], example["key"])
    )
    # Threads decode while others read; the order stays.
    examples = list(dataset.to_iter_dataset(grain.ReadOptions(num_threads=4)))
    images, labels, keys = zip(*examples, strict=True)
    return Split(np.stack(images), np.asarray(labels, np.int32), [key.decode() for key in keys])


def batch_indices(
    key: jax.Array, count: int, steps: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """One epoch's shuffled batches; every example counts exactly once.

    The `steps` batches share the examples evenly: their sizes differ by at most one, so there is
    no small last batch. Where a batch has fewer than `batch_size` examples, its last places repeat
    others with weight zero.

    Args:
      key: decides the order.
      count: number of examples, at most steps * batch_size.
      steps: number of batches.
      batch_size: places in a batch.

    Returns:
      indices int32 [steps, batch_size] into the examples, and weights float32 of the same shape.
    """
    order = jax.random.permutation(key, count)
    bounds = np.linspace(0, count, steps + 1).round().astype(np.int32)
    places = bounds[:-1, None] + np.arange(batch_size)
    return order[places % count], jnp.asarray(places < bounds[1:, None], jnp.float32)
