"""Protocols: no subject in two parts, no example lost, no dependence on the file order."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_emotion_jax.data.folds import (
    Dataset,
    Fold,
    Protocols,
    drop_copies,
    make_folds,
    official,
    subject_folds,
)
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError

PARTS = ("train", "validation", "test")


def named(name, splits):
    """A dataset with these splits and the protocols of that name."""
    builder = importlib.import_module(f"datasets.{name}.{name}_dataset_builder").Builder
    return Dataset(name, splits, [], getattr(builder, "PROTOCOLS", Protocols()))


def dataset(people=12, sequences=4, classes=7, order=None):
    """People with sequences of three frames each, in the order of CK+48's keys."""
    rows = [
        (
            f"S{person:03d}_{sequence:03d}_{frame:08d}",
            f"S{person:03d}",
            (person + sequence) % classes,
        )
        for person in range(people)
        for sequence in range(sequences)
        for frame in range(3)
    ]
    if order is not None:
        rows = [rows[i] for i in order]
    keys, subjects, labels = map(list, zip(*rows, strict=True))
    images = np.zeros((len(keys), 48, 48, 1), np.uint8)
    return {"all": Split(images, np.array(labels, np.int32), keys, subjects)}


def keys_of_parts(folds, names):
    return {
        (fold.name, part): sorted(names[i] for i in getattr(fold, part))
        for fold in folds
        for part in PARTS
    }


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    people=st.integers(10, 40),
    sequences=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["ck_plus", "jaffe", "ferg"]),
)
def test_no_subject_and_no_sequence_is_in_two_parts(people, sequences, seed, name):
    splits = dataset(people, sequences)
    data = splits["all"]
    folds = make_folds(named(name, splits), "subjects", seed)
    assert len(folds) == (10 if name == "ck_plus" else people)
    tested = []
    for fold in folds:
        parts = [getattr(fold, part) for part in PARTS]
        assert sorted(np.concatenate(parts)) == list(range(len(data.keys)))
        for of in (data.subjects, [key[:8] for key in data.keys]):
            train, validation, test = ({of[i] for i in part} for part in parts)
            assert min(len(train), len(validation), len(test)) > 0
            assert len(train | validation | test) == len(train) + len(validation) + len(test)
        tested.extend(fold.test)
    assert sorted(tested) == list(range(len(data.keys)))  # every example is tested once


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_folds_do_not_depend_on_the_file_order(random, seed):
    order = list(range(12 * 4 * 3))
    random.shuffle(order)
    straight, shuffled = dataset(), dataset(order=order)
    for name, protocol in [("ck_plus", "subjects"), ("jaffe", "subjects"), ("ck_plus", "paper")]:
        a = keys_of_parts(make_folds(named(name, straight), protocol, seed), straight["all"].keys)
        b = keys_of_parts(make_folds(named(name, shuffled), protocol, seed), shuffled["all"].keys)
        assert a == b


def test_the_papers_split_of_ck_plus():
    splits = dataset(people=118, sequences=3)  # 1,062 images
    (fold,) = make_folds(named("ck_plus", splits), "paper", 0)
    assert [len(getattr(fold, part)) for part in PARTS] == [1062 - 106 - 212, 106, 212]
    (other,) = make_folds(named("ck_plus", splits), "paper", 1)
    assert set(fold.test) != set(other.test)


def test_the_papers_split_of_jaffe():
    keys = [f"{i:03d}" for i in range(213)]
    labels = np.arange(213, dtype=np.int32) % 7
    splits = {"all": Split(np.zeros((213, 48, 48, 1), np.uint8), labels, keys, ["KA"] * 213)}
    (fold,) = make_folds(named("jaffe", splits), "paper", 3)
    assert [len(getattr(fold, part)) for part in PARTS] == [120, 23, 70]
    np.testing.assert_array_equal(np.bincount(labels[fold.test]), [10] * 7)
    assert sorted(np.concatenate(fold[1:])) == list(range(213))
    with pytest.raises(UserError, match="too few"):
        make_folds(named("ferg", splits), "paper", 0)


def test_official_splits_keep_their_order():
    parts = {name: dataset(people)["all"] for name, people in zip(PARTS, (5, 2, 3), strict=True)}
    fold = official(parts)
    assert [len(getattr(fold, part)) for part in PARTS] == [60, 24, 36]
    np.testing.assert_array_equal(np.concatenate(fold[1:]), np.arange(120))
    del parts["test"]
    assert len(official(parts).test) == 0


def test_the_official_protocol_has_one_fold_with_the_splits_of_the_dataset():
    parts = {name: dataset(people)["all"] for name, people in zip(PARTS, (5, 2, 3), strict=True)}
    (fold,) = make_folds(named("fer2013", parts), "official", 0)
    assert fold.name == "official"
    for found, expected in zip(fold[1:], official(parts)[1:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_folds_are_named_after_their_number_or_subject():
    splits = dataset(people=12)
    names = [fold.name for fold in make_folds(named("ck_plus", splits), "subjects", 0)]
    assert names == [f"fold-{i:02d}" for i in range(10)]
    names = [fold.name for fold in make_folds(named("jaffe", splits), "subjects", 0)]
    assert names == [f"subject-S{i:03d}" for i in range(12)]
    assert [fold.name for fold in make_folds(named("ck_plus", splits), "paper", 7)] == ["random-7"]


def test_drop_copies():
    keys = [f"k{i}" for i in range(8)]
    copies = ["", "k0", "", "k2", "", "k4", "k2", ""]  # groups {0, 1}, {2, 3, 6}, {4, 5}, {7}
    data = Split(np.zeros((8, 48, 48, 1), np.uint8), np.zeros(8, np.int32), keys, [""] * 8)
    fold = Fold("a", np.array([0, 1, 2, 3, 7]), np.array([4, 5]), np.array([6]))
    dropped = drop_copies(fold, data._replace(copies=copies))
    np.testing.assert_array_equal(
        dropped.train, [0, 7]
    )  # 1 is a copy of 0; 2 and 3 are copies of 6
    np.testing.assert_array_equal(dropped.validation, [4, 5])
    no_test = Fold("b", np.array([3, 5, 2]), np.array([4]), np.array([], int))
    np.testing.assert_array_equal(drop_copies(no_test, data._replace(copies=copies)).train, [3])
    with pytest.raises(UserError, match="only the dataset fer2013 marks copies"):
        drop_copies(fold, data)


def test_missing_protocols_are_named():
    splits = dataset()
    nobody = {"all": splits["all"]._replace(subjects=[""] * 144)}
    for name, protocol, given_splits, words in [
        ("ck_plus", "official", splits, "ck_plus has no official train and validation splits"),
        ("fer2013", "official", {"train": splits["all"]}, "no official train and validation"),
        ("fer2013", "official", {"validation": splits["all"]}, "no official train and validation"),
        ("ck_plus", "random", splits, "must be one of .*'official', 'paper', 'subjects'"),
        ("fer2013", "paper", splits, "no random split"),
        ("fer2013", "subjects", nobody, "does not name the subjects"),
    ]:
        with pytest.raises(UserError, match=words):
            make_folds(named(name, given_splits), protocol, 0)
    with pytest.raises(UserError, match="too few"):
        subject_folds(["a", "b"], ["A", "B"], 0, None)
