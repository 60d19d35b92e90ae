"""From a prepared TFDS dataset to arrays: read once with Grain, kept small, checked."""

import hashlib
import math
from typing import Any, NamedTuple

import grain
import numpy as np


class Split(NamedTuple):
    """One split of a dataset, in memory.

    Attributes:
      images: uint8 [N, 48, 48, 1].
      labels: int32 [N].
      keys: the N example keys; folds and random splits are functions of these.
      subjects: who is in each of the N images, "" where the dataset does not say.
      evidence: bool [N, 48, 48], True where the expression shows, or None where that is not known.
      soft_labels: float32 [N, K], the probabilities that raters or a teacher give to each class, or
        None.
      copies: for each of the N images, the key of the first image with the same pixels, or "" if it
        is the first; None where the dataset does not look for copies.
    """

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]
    subjects: list[str]
    evidence: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    copies: list[str] | None = None

    def select(self, index: np.ndarray) -> "Split":
        """The examples at these places."""
        return Split(
            self.images[index],
            self.labels[index],
            [self.keys[i] for i in index],
            [self.subjects[i] for i in index],
            None if self.evidence is None else self.evidence[index],
            None if self.soft_labels is None else self.soft_labels[index],
            None if self.copies is None else [self.copies[i] for i in index],
        )

    def copies_of(self, index: np.ndarray) -> np.ndarray:
        """Marks images whose pixels are also among those at `index` (int [A]): bool [N]."""
        if self.copies is None:
            return np.zeros(len(self.keys), bool)
        originals = np.array(
            [copy or key for key, copy in zip(self.keys, self.copies, strict=True)]
        )
        return np.isin(originals, originals[index])

    def fingerprint(self) -> str:
        """SHA-256 of keys, labels and pixels: the same data gives the same string anywhere."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels.astype("<i4")):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update("\n".join([*self.keys, *self.subjects]).encode())
        return digest.hexdigest()


def load_split(source: Any, part: int = 0, parts: int = 1) -> Split:
    """Reads a random-access source, such as a TFDS `as_data_source(split=...)`, or a part of it.

    Args:
      source: `len` and indexing; examples hold `image` uint8 [48, 48, 1], `label`, `key` and, where
        the dataset knows, `subject`, `evidence_mask` uint8 [48, 48, 1], `soft_label` float32 [K]
        and `copy_of`, a key or "".
      part: which part to read, below `parts`.
      parts: into how many the source is dealt out, one example to each in turn. All are of one
        size: where the examples do not suffice, the last place repeats one of the first.

    Returns:
      The split, in the source's order.
    """
    places = (part + parts * np.arange(math.ceil(len(source) / parts))) % len(source)
    chosen = grain.MapDataset.range(len(places)).map(lambda i: source[int(places[i])])
    dataset = chosen.map(
        lambda example: (
            example["image"],
            example["label"],
            example["key"].decode(),
            example.get("subject", b"").decode(),
            example.get("evidence_mask"),
            example.get("soft_label"),
            example.get("copy_of"),
        )
    )
    # Threads decode while others read; the order stays.
    examples = list(dataset.to_iter_dataset(grain.ReadOptions(num_threads=4)))
    images, labels, keys, subjects, masks, soft, copies = zip(*examples, strict=True)
    return Split(
        np.stack(images),
        np.asarray(labels, np.int32),
        list(keys),
        list(subjects),
        None if masks[0] is None else np.stack(masks)[..., 0] > 0,
        None if soft[0] is None else np.stack(soft),
        None if copies[0] is None else [copy.decode() for copy in copies],
    )
