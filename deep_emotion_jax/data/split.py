"""Reads splits of a prepared dataset into arrays."""

import hashlib
import io
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

READ_AT_ONCE = 1024  # examples, whose encoded images take 2 MB
HASHED_AT_ONCE = 1 << 12  # examples, whose pixels stay in the cache


class Split(NamedTuple):
    """One split of a dataset, in memory.

    If it does not fit, `images` and `evidence` are `stored.StoredRows`: they are indexed like
    arrays, and `select` reads the rows that it selects.

    Attributes:
      images: uint8 [N, 48, 48, 1].
      labels: int32 [N].
      keys: the N example keys; folds and random splits are functions of these.
      subjects: the person in each of the N images, "" if unknown.
      evidence: bool [N, 48, 48], True where the expression is visible, or None if unknown.
      soft_labels: float32 [N, K], class probabilities from raters or a teacher, or None.
      copies: for each of the N images, the key of the first image with the same pixels, or "" if it
        is the first; None if the dataset does not mark copies.
    """

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]
    subjects: list[str]
    evidence: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    copies: list[str] | None = None

    def select(self, index: np.ndarray) -> "Split":
        """Returns the examples at these indices."""
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
        """Marks the images with the same pixels as any image at `index` (int [A]): bool [N]."""
        if self.copies is None:
            return np.zeros(len(self.keys), bool)
        originals = np.array(
            [copy or key for key, copy in zip(self.keys, self.copies, strict=True)]
        )
        return np.isin(originals, originals[index])

    def fingerprint(self) -> str:
        """Returns the SHA-256 of pixels, labels, keys and subjects, equal on all machines."""
        digest = hashlib.sha256()
        for first in range(0, len(self.images), HASHED_AT_ONCE):
            digest.update(np.ascontiguousarray(self.images[first : first + HASHED_AT_ONCE]).data)
        digest.update(self.labels.astype("<i4").tobytes())
        digest.update("\n".join([*self.keys, *self.subjects]).encode())
        return digest.hexdigest()


def load_split(source: Any, part: int = 0, parts: int = 1) -> Split:
    """Reads a random-access source, such as a TFDS `as_data_source(split=...)`, or a part of it.

    Args:
      source: `len` and indexing; examples hold `image` uint8 [48, 48, 1], `label`, `key` and
        optionally `subject`, `evidence_mask` uint8 [48, 48, 1], `soft_label` float32 [K] and
        `copy_of`, a key or "". Images may be encoded as PNG or JPEG.
      part: index of the part to read, below `parts`.
      parts: number of parts; example i is in part i % parts. All parts have the same size: if
        examples are missing at the end, the first ones are repeated.

    Returns:
      The split, in the source's order.
    """
    places = (part + parts * np.arange(math.ceil(len(source) / parts))) % len(source)
    images, labels, keys, subjects, masks, soft, copies = zip(
        *map(_columns, _examples(source, places.tolist())), strict=True
    )
    return Split(
        np.stack(images),
        np.asarray(labels, np.int32),
        list(keys),
        list(subjects),
        None if masks[0] is None else np.stack(masks)[..., 0] > 0,
        None if soft[0] is None else np.stack(soft),
        None if copies[0] is None else list(copies),
    )


def _examples(source: Any, places: list[int]) -> Iterator[dict[str, Any]]:
    """Yields the examples at these places, read in batches if the source can."""
    if not hasattr(source, "__getitems__"):
        yield from (source[place] for place in places)
        return
    for first in range(0, len(places), READ_AT_ONCE):
        yield from source.__getitems__(places[first : first + READ_AT_ONCE])


def _columns(example: dict[str, Any]) -> tuple[Any, ...]:
    copy = example.get("copy_of")
    return (
        _pixels(example["image"]),
        example["label"],
        example["key"].decode(),
        example.get("subject", b"").decode(),
        _pixels(example.get("evidence_mask")),
        example.get("soft_label"),
        None if copy is None else copy.decode(),
    )


def _pixels(image: Any) -> Any:
    """Decodes a grey image to uint8 [48, 48, 1]; returns anything else unchanged."""
    if not isinstance(image, bytes):
        return image
    return np.asarray(Image.open(io.BytesIO(image), formats=("JPEG", "PNG")))[..., None]
