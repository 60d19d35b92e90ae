"""Properties of every split of a protocol, for any keys, labels, people and copies."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_emotion_jax.data.folds import (
    Fold,
    drop_copies,
    hash_order,
    official,
    per_class_split,
    random_split,
    subject_folds,
)
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError

PARTS = ("train", "validation", "test")
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**31)
names = st.lists(st.text(max_size=6), min_size=1, max_size=60, unique=True)


def of(fold, values):
    """The values of each part of a fold."""
    return tuple(sorted(values[i] for i in getattr(fold, part)) for part in PARTS)


def assert_partition(fold, count):
    assert sorted(np.concatenate(fold[1:]).tolist()) == list(range(count))


def faces(keys, labels=None, copies=None):
    """A split of black pictures."""
    count = len(keys)
    images = np.zeros((count, 1, 1, 1), np.uint8)
    labels = np.array(labels or [0] * count, np.int32)
    return Split(images, labels, list(keys), [""] * count, copies=copies)


def shuffled(draw, *columns):
    """Each column, and the same column with its rows in another order."""
    order = draw(st.permutations(range(len(columns[0]))))
    return [(column, [column[i] for i in order]) for column in columns]


@quick
@given(keys=names, seed=seeds)
def test_hash_order_sorts_by_digest(keys, seed):
    order = hash_order(keys, seed)
    digests = [hashlib.sha256(f"{seed}/{key}".encode()).hexdigest() for key in keys]
    assert [digests[i] for i in order] == sorted(digests)
    assert sorted(order.tolist()) == list(range(len(keys)))


def test_hash_order_is_fixed():
    """Reported accuracies depend on these splits."""
    assert hash_order([f"face_{i}" for i in range(10)], 0).tolist() == [
        8,
        2,
        1,
        3,
        7,
        9,
        4,
        6,
        0,
        5,
    ]
    assert hash_order([f"face_{i}" for i in range(10)], 1).tolist() == [
        9,
        2,
        1,
        8,
        3,
        5,
        6,
        7,
        4,
        0,
    ]


@quick
@given(st.data(), names, seeds, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_random_split_is_a_partition_that_depends_on_its_keys(data, keys, seed, validation, test):
    ((keys, others),) = shuffled(data.draw, keys)
    shares = {"validation": validation, "test": test}
    fold = random_split(faces(keys), seed, **shares)
    assert_partition(fold, len(keys))
    tested = round(test * len(keys))
    assert len(fold.test) == tested
    assert len(fold.validation) == min(round(validation * len(keys)), len(keys) - tested)
    assert of(random_split(faces(others), seed, **shares), others) == of(fold, keys)
    # The test images are the first of the order, independent of the number for validation.
    assert set(fold.test) == set(hash_order(keys, seed)[:tested].tolist())


@quick
@given(st.data(), names, seeds, st.integers(1, 4), st.integers(1, 4), st.integers(0, 12))
def test_a_split_per_class_has_equally_many_test_images_per_class(
    data, keys, seed, classes, each, validation
):
    labels = [data.draw(st.integers(0, classes - 1)) for _ in keys]
    (keys, other_keys), (labels, other_labels) = shuffled(data.draw, keys, labels)
    counts = {label: labels.count(label) for label in set(labels)}
    enough = min(counts.values()) >= each and len(keys) > len(counts) * each + validation
    counted = {"validation": validation, "test_per_class": each}
    try:
        fold = per_class_split(faces(keys, labels), seed, **counted)
    except UserError:
        assert not enough
        return
    assert enough
    assert_partition(fold, len(keys))
    assert of(fold, labels)[2] == sorted(label for label in counts for _ in range(each))
    assert len(fold.validation) == validation
    other = per_class_split(faces(other_keys, other_labels), seed, **counted)
    assert of(other, other_keys) == of(fold, keys)


@quick
@given(st.data(), names, seeds, st.sampled_from([None, 3, 4]))
def test_no_person_is_in_two_parts_and_everyone_is_tested_once(data, keys, seed, count):
    people = [data.draw(st.sampled_from("ABCDEFG")) for _ in keys]
    (keys, other_keys), (people, other_people) = shuffled(data.draw, keys, people)
    persons = set(people)
    try:
        folds = subject_folds(keys, people, seed, count)
    except UserError:
        assert len(persons) < (count or 3)
        return
    assert len(persons) >= (count or 3)
    assert len(folds) == (count or len(persons))
    assert len({fold.name for fold in folds}) == len(folds)
    for i, fold in enumerate(folds):
        assert_partition(fold, len(keys))
        train, validation, test = map(set, of(fold, people))
        assert train
        assert validation
        assert test
        assert len(train) + len(validation) + len(test) == len(persons)
        assert of(fold, keys)[1] == of(folds[(i + 1) % len(folds)], keys)[2]
    tested = sorted(np.concatenate([fold.test for fold in folds]).tolist())
    assert tested == list(range(len(keys)))
    sizes = [len(set(of(fold, people)[2])) for fold in folds]
    assert max(sizes) - min(sizes) <= 1  # numbers of persons
    others = subject_folds(other_keys, other_people, seed, count)
    assert [(fold.name, of(fold, other_keys)) for fold in others] == [
        (fold.name, of(fold, keys)) for fold in folds
    ]


@quick
@given(st.lists(st.integers(0, 20), min_size=3, max_size=3), st.booleans())
def test_official_splits_are_consecutive(sizes, with_test):
    parts = PARTS if with_test else PARTS[:2]
    splits = {
        name: faces([str(i) for i in range(count)])
        for name, count in zip(parts, sizes, strict=False)
    }
    fold = official(splits)
    assert np.concatenate(fold[1:]).tolist() == list(range(sum(sizes[: len(parts)])))
    assert [len(indices) for indices in fold[1:]] == [*sizes[:2], sizes[2] * with_test]


@quick
@given(st.data(), st.integers(3, 40))
def test_drop_copies_leaves_no_pixels_in_two_parts_or_twice(data, count):
    # The original of each image: itself, or an earlier image that is one.
    originals: list[int] = []
    for i in range(count):
        firsts = sorted(set(originals))
        originals.append(data.draw(st.sampled_from([i, i, *firsts])))
    copies = [f"k{at}" if at != i else "" for i, at in enumerate(originals)]
    sides = np.array([data.draw(st.integers(0, 2)) for _ in range(count)])
    fold = Fold("a", *(np.flatnonzero(sides == side) for side in range(3)))
    dropped = drop_copies(fold, faces([f"k{i}" for i in range(count)], copies=copies))
    held_out = {originals[i] for i in np.concatenate([fold.validation, fold.test])}
    kept = [originals[i] for i in dropped.train]
    assert len(set(kept)) == len(kept)
    assert set(kept) == {originals[i] for i in fold.train} - held_out  # no more than needed
    assert set(dropped.train) <= set(fold.train)
    assert sorted(dropped.train) == dropped.train.tolist()
    np.testing.assert_array_equal(dropped.validation, fold.validation)
    np.testing.assert_array_equal(dropped.test, fold.test)
