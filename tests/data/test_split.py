"""Splits: examples read once and in order, fingerprints, copies, soft labels."""

import numpy as np

from deep_emotion_jax.data.folds import join
from deep_emotion_jax.data.split import load_split


def source(count=10):
    return [
        {"image": np.full((48, 48, 1), i, np.uint8), "label": i % 7, "key": f"k{i}".encode()}
        for i in range(count)
    ]


def test_every_example_is_read_in_order():
    split = load_split(source())
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], np.arange(10))
    np.testing.assert_array_equal(split.labels, np.arange(10) % 7)
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int32
    assert split.keys == [f"k{i}" for i in range(10)]
    assert split.subjects == [""] * 10
    with_subjects = [{**example, "subject": b"S1"} for example in source()]
    assert load_split(with_subjects).subjects == ["S1"] * 10
    chosen = split.select(np.array([7, 2]))
    assert chosen.keys == ["k7", "k2"]
    np.testing.assert_array_equal(chosen.labels, [0, 2])


def test_fingerprint_depends_on_every_part():
    split = load_split(source())
    again = load_split(source())
    assert split.fingerprint() == again.fingerprint()
    again.images[3, 5, 5] += 1
    assert split.fingerprint() != again.fingerprint()
    assert split.fingerprint() != split._replace(labels=split.labels + 1).fingerprint()
    assert split.fingerprint() != split._replace(keys=["x"] * 10).fingerprint()
    assert split.fingerprint() != split._replace(subjects=["S1"] * 10).fingerprint()


def test_copies_of_chosen_images_are_found_in_both_directions():
    marked = [{**example, "copy_of": b""} for example in source(6)]
    marked[2]["copy_of"] = marked[5]["copy_of"] = b"k0"
    marked[4]["copy_of"] = b"k3"
    split = load_split(marked)
    np.testing.assert_array_equal(
        split.copies_of(np.array([2, 4])), [True, False, True, True, True, True]
    )
    assert split.select(np.array([5, 1])).copies == ["k0", ""]
    assert join({"a": split, "b": split}).copies == split.copies * 2
    assert not load_split(source()).copies_of(np.array([0])).any()


def test_soft_labels_are_read_and_joined():
    soft = np.random.default_rng(0).random((10, 7), np.float32)
    examples = [{**example, "soft_label": row} for example, row in zip(source(), soft, strict=True)]
    split = load_split(examples)
    np.testing.assert_array_equal(split.soft_labels, soft)
    np.testing.assert_array_equal(join({"a": split, "b": split}).soft_labels, [*soft, *soft])
    assert join({"a": split, "b": load_split(source())}).soft_labels is None
