"""Evaluation protocols: training, validation and test examples as pure functions of their keys.

Examples are ordered by a hash of seed and key, so the order of files does not matter and the same
images give the same split on every machine. The protocol "subjects" never splits a subject (a
person, a cartoon character).
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.data.stored import concatenate
from deep_emotion_jax.errors import UserError

PROTOCOLS = ("official", "paper", "subjects")


class Fold(NamedTuple):
    """One split of a dataset; the three arrays index its examples and are disjoint.

    Attributes:
      name: short and valid as a file name, such as "fold-03" or "subject-KA".
      train: int [A], for fitting the weights.
      validation: int [B], for choosing the epoch.
      test: int [C], evaluated once, at the end; may be empty.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Run(NamedTuple):
    """One training run: a fold, and a seed for weights, shuffling, augmentation and dropout."""

    fold: Fold
    seed: int

    @property
    def name(self) -> str:
        """Its name in files and metrics."""
        return f"{self.fold.name}-seed-{self.seed}"


class Protocols(NamedTuple):
    """A dataset's protocols other than "official".

    Attributes:
      paper: the paper's random split of all examples, from a seed; None if it reports none.
      subject_folds: number of folds of subjects; None leaves one subject out at a time.
    """

    paper: Callable[[Split, int], Fold] | None = None
    subject_folds: int | None = None


class Dataset(NamedTuple):
    """A dataset for training.

    Attributes:
      name: as in `config.dataset`.
      splits: its official splits, or the requested ones, in order.
      class_names: the K names of the labels.
      protocols: its protocols other than "official".
    """

    name: str
    splits: dict[str, Split]
    class_names: list[str]
    protocols: Protocols = Protocols()


def make_folds(dataset: Dataset, protocol: str, seed: int) -> list[Fold]:
    """Return the folds of a protocol, over the examples of all splits joined in order.

    "official" is the dataset's own split. "paper" is the paper's random split, as commonly quoted;
    near-copies of one face may be in training and test. "subjects" is subject-independent.

    Args:
      dataset: with all of its splits.
      protocol: one of `PROTOCOLS`.
      seed: of the random splits.

    Raises:
      UserError: if the dataset has no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"config.protocol must be one of {PROTOCOLS}, got {protocol!r}")
    if protocol == "official":
        if not {"train", "validation"} <= dataset.splits.keys():
            raise UserError(
                f"{dataset.name} has no official train and validation splits (it has "
                f"{list(dataset.splits)}); set config.protocol to 'paper' or 'subjects'"
            )
        return [official(dataset.splits)]
    whole = join(dataset.splits)
    if protocol == "subjects":
        if not all(whole.subjects):
            raise UserError(
                f"{dataset.name} does not name the subjects of its images, so it has no "
                "'subjects' protocol; choose another config.protocol"
            )
        count = dataset.protocols.subject_folds
        return subject_folds(whole.keys, whole.subjects, seed, count)
    if dataset.protocols.paper is None:
        raise UserError(
            f"the paper has no random split of {dataset.name}; use config.protocol=official"
        )
    return [dataset.protocols.paper(whole, seed)]


def join(splits: dict[str, Split]) -> Split:
    """Concatenates splits in their order."""
    images, labels, keys, subjects, evidence, soft, copies = zip(*splits.values(), strict=True)
    return Split(
        concatenate(images),
        np.concatenate(labels),
        [*chain.from_iterable(keys)],
        [*chain.from_iterable(subjects)],
        None if any(part is None for part in evidence) else concatenate(evidence),
        None if any(part is None for part in soft) else np.concatenate(soft),
        None if any(part is None for part in copies) else [*chain.from_iterable(copies)],
    )


def official(splits: dict[str, Split]) -> Fold:
    """Returns the dataset's own splits, as indices into their `join`."""
    ends = np.cumsum([len(split.labels) for split in splits.values()])
    places = {
        name: np.arange(end - len(split.labels), end)
        for (name, split), end in zip(splits.items(), ends, strict=True)
    }
    empty = np.arange(0)
    return Fold("official", places["train"], places["validation"], places.get("test", empty))


def drop_copies(fold: Fold, data: Split) -> Fold:
    """Returns a fold without copies among its training images.

    It leaves out images whose pixels also occur in validation or test images, and all but the first
    of each group of equal training images.

    Raises:
      UserError: if the dataset does not mark copies.
    """
    if data.copies is None:
        raise UserError("config.drop_copies=True, but only the dataset fer2013 marks copies")
    held_out = np.concatenate([fold.validation, fold.test]).astype(int)
    train = fold.train[~data.copies_of(held_out)[fold.train]]
    originals = [data.copies[i] or data.keys[i] for i in train]
    _, first = np.unique(originals, return_index=True)
    return fold._replace(train=train[np.sort(first)])


def random_split(data: Split, seed: int, *, validation: float, test: float) -> Fold:
    """Returns a random split by shares of the examples (the paper on CK+: 70 / 10 / 20 %)."""
    order = hash_order(data.keys, seed)
    tested, validated = round(test * len(order)), round(validation * len(order))
    return _cut(f"random-{seed}", order, tested, validated)


def per_class_split(data: Split, seed: int, *, validation: int, test_per_class: int) -> Fold:
    """Returns a split with equally many test images per class (the paper on JAFFE and FERG).

    Raises:
      UserError: if a class is too small, or nothing is left to train on.
    """
    order = hash_order(data.keys, seed)
    labels = data.labels[order]
    test = [order[labels == label][:test_per_class] for label in np.unique(labels)]
    if min(map(len, test)) < test_per_class or len(order) <= sum(map(len, test)) + validation:
        raise UserError(
            f"{len(order)} images are too few for {test_per_class} test images of every class and "
            f"{validation} for validation"
        )
    tested = np.sort(np.concatenate(test))
    rest = order[~np.isin(order, tested)]
    fold = _cut(f"random-{seed}", rest, 0, validation)
    return fold._replace(test=tested)


def subject_folds(
    keys: Sequence[str], subjects: Sequence[str], seed: int, count: int | None = None
) -> list[Fold]:
    """Returns the folds of a subject-independent cross-validation.

    Each fold tests on one group of subjects, validates on the next group, and trains on all others.

    Args:
      keys: example keys.
      subjects: the person in each example.
      seed: of the grouping of subjects.
      count: number of folds, with nearly equally many subjects; None: leave-one-subject-out.

    Raises:
      UserError: with fewer than three subjects, or fewer subjects than folds.
    """
    people = sorted(set(subjects))
    shuffled = [people[i] for i in hash_order(people, seed)] if count else people
    if len(people) < max(3, count or 0):
        raise UserError(f"{len(people)} subjects are too few for {max(3, count or 0)} folds")
    groups = [shuffled[i :: count or len(people)] for i in range(count or len(people))]
    members = [np.flatnonzero(np.isin(np.asarray(subjects), group)) for group in groups]
    everyone = np.arange(len(keys))
    folds = []
    for i, test in enumerate(members):
        validation = members[(i + 1) % len(members)]
        train = np.setdiff1d(everyone, np.concatenate([test, validation]))
        name = f"fold-{i:02d}" if count else f"subject-{groups[i][0]}"
        folds.append(Fold(name, train, validation, test))
    return folds


def hash_order(keys: Sequence[str], seed: int) -> np.ndarray:
    """Returns a shuffled order that depends on seed and keys, not on the order of the keys."""
    digests = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=digests.__getitem__), int)


def _cut(name: str, order: np.ndarray, tested: int, validated: int) -> Fold:
    test, validation, train = np.split(order, [tested, tested + validated])
    return Fold(name, np.sort(train), np.sort(validation), np.sort(test))
