"""Evaluation protocols: which examples train, choose and test, as pure functions of their keys.

File order never matters: examples are ordered by a hash of seed and key, so the same images give
the same division on every machine. Groups (persons, cartoon characters) stay on one side.
"""

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError

PROTOCOLS = ("official", "paper", "subjects")
SUBJECT_FOLDS = {"ck_plus": 10, "synthetic_faces": 10}  # others leave one subject out at a time


class Fold(NamedTuple):
    """One division of a dataset; the three arrays index its examples and share none.

    Attributes:
      name: short and fit for a file name, such as "fold-03" or "subject-KA".
      train: int [A], what the weights are fitted to.
      validation: int [B], what the best epoch is chosen on.
      test: int [C], read once, at the end; may be empty.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Run(NamedTuple):
    """One training: a fold and a seed of its own for weights, shuffling, augmentation, dropout."""

    fold: Fold
    seed: int

    @property
    def name(self) -> str:
        """Names its files and lines."""
        return f"{self.fold.name}-seed-{self.seed}"


def make_folds(dataset: str, protocol: str, splits: dict[str, Split], seed: int) -> list[Fold]:
    """The folds of a protocol, over the examples of all splits joined in order.

    "official" is the dataset's own division. "paper" is the random division the paper used, as it
    is commonly quoted; near-copies of one face may sit on both sides. "subjects" is the honest one:
    nobody is on two sides (10 folds of persons where there are many; else one left out at a time).

    Args:
      dataset: its name.
      protocol: one of `PROTOCOLS`.
      splits: the dataset as it was read.
      seed: of the random divisions.

    Raises:
      UserError: if the dataset has no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"config.protocol={protocol!r} is none of {PROTOCOLS}")
    if protocol == "official":
        if not {"train", "validation"} <= splits.keys():
            raise UserError(
                f"{dataset} has no official train and validation splits (it has {list(splits)}); "
                "set config.protocol to 'paper' or 'subjects'"
            )
        return [official(splits)]
    whole = join(splits)
    if protocol == "subjects":
        if not all(whole.subjects):
            raise UserError(f"{dataset} does not say who is in its images: no 'subjects' protocol")
        return subject_folds(whole.keys, whole.subjects, seed, SUBJECT_FOLDS.get(dataset))
    if dataset == "ck_plus":
        return [random_split(whole.keys, seed, validation=0.1, test=0.2)]
    if dataset == "jaffe":  # 120 / 23 / 70
        return [per_class_split(whole.keys, whole.labels, seed, validation=23, test_per_class=10)]
    if dataset == "ferg":  # about 34,000 / 14,000 / 7,000
        return [
            per_class_split(whole.keys, whole.labels, seed, validation=14_000, test_per_class=1000)
        ]
    raise UserError(f"the paper has no random division of {dataset}: use config.protocol=official")


def join(splits: dict[str, Split]) -> Split:
    """All splits as one, in their order."""
    images, labels, keys, subjects, evidence, soft, copies = zip(*splits.values(), strict=True)
    return Split(
        np.concatenate(images),
        np.concatenate(labels),
        [*chain.from_iterable(keys)],
        [*chain.from_iterable(subjects)],
        None if any(part is None for part in evidence) else np.concatenate(evidence),
        None if any(part is None for part in soft) else np.concatenate(soft),
        None if any(part is None for part in copies) else [*chain.from_iterable(copies)],
    )


def official(splits: dict[str, Split]) -> Fold:
    """The dataset's own splits, as indices into their join."""
    ends = np.cumsum([len(split.labels) for split in splits.values()])
    places = {
        name: np.arange(end - len(split.labels), end)
        for (name, split), end in zip(splits.items(), ends, strict=True)
    }
    empty = np.arange(0)
    return Fold("official", places["train"], places["validation"], places.get("test", empty))


def drop_copies(fold: Fold, data: Split) -> Fold:
    """A fold without training images that are copies.

    Left out are those whose pixels occur in validation or test images, and all but the first of
    each group of equal training images.

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


def random_split(keys: Sequence[str], seed: int, validation: float, test: float) -> Fold:
    """A random division by shares of the examples (the paper on CK+: 70 / 10 / 20 %)."""
    order = hash_order(keys, seed)
    tested, validated = round(test * len(keys)), round(validation * len(keys))
    return _cut(f"random-{seed}", order, tested, validated)


def per_class_split(
    keys: Sequence[str], labels: np.ndarray, seed: int, validation: int, test_per_class: int
) -> Fold:
    """A random division with as many test images of every class (the paper on JAFFE and FERG).

    Raises:
      UserError: if a class is too small, or nothing is left to train on.
    """
    order = hash_order(keys, seed)
    test = [order[labels[order] == label][:test_per_class] for label in np.unique(labels)]
    if min(map(len, test)) < test_per_class or len(keys) <= sum(map(len, test)) + validation:
        raise UserError(
            f"{len(keys)} images are too few for {test_per_class} test images of every class and "
            f"{validation} for validation"
        )
    tested = np.sort(np.concatenate(test))
    rest = order[~np.isin(order, tested)]
    fold = _cut(f"random-{seed}", rest, 0, validation)
    return fold._replace(test=tested)


def subject_folds(
    keys: Sequence[str], subjects: Sequence[str], seed: int, count: int | None = None
) -> list[Fold]:
    """Cross-validation in which nobody is on two sides.

    Each fold tests on some subjects, chooses on those that the next fold tests on, and trains on
    all others.

    Args:
      keys: example keys.
      subjects: who is in each example.
      seed: decides who goes together.
      count: number of folds, of nearly the same number of subjects each; None leaves one out.

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
    """A shuffled order that depends on seed and keys only, not on the order they come in."""
    digests = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=digests.__getitem__), int)


def _cut(name: str, order: np.ndarray, tested: int, validated: int) -> Fold:
    test, validation, train = np.split(order, [tested, tested + validated])
    return Fold(name, np.sort(train), np.sort(validation), np.sort(test))
