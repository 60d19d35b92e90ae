"""Generated faces: exact labels, evidence masks, and no shortcut for a linear classifier."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from datasets import common
from datasets.synthetic_faces import drawing, face
from datasets.synthetic_faces.drawing import draw
from datasets.synthetic_faces.scene import OCCLUDERS, random_person, random_scene
from datasets.synthetic_faces.synthetic_faces_dataset_builder import Builder

NUMBERS = list(face.ACTION_UNITS)
SUBJECTS = {"train": 3, "validation": 1, "test": 2}


@pytest.fixture(scope="module")
def examples():
    # 40 people, 14 faces of each.
    indices = [s * face.FACES_PER_SUBJECT + i for s in range(40) for i in range(14)]
    return [face.draw_example(0, index) for index in indices]


def expressions_of(action_units):
    """The expressions whose definition a vector of action units meets."""
    present = {number for number, value in zip(NUMBERS, action_units, strict=True) if value > 0}
    return [
        label
        for label in face.LABELS
        if {*face.REQUIRED[label]} <= present <= {*face.REQUIRED[label], *face.OPTIONAL[label]}
    ]


def drawn(person, scene, halves):
    """Draws faces from intensities [faces, 15, 2]."""
    return draw(person, scene, dict(zip(NUMBERS, halves.swapaxes(0, 1), strict=True)))


def test_same_seed_and_index_give_the_same_example_and_others_do_not():
    first, again = face.draw_example(3, 17), face.draw_example(3, 17)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.image, face.draw_example(4, 17).image)
    assert not np.array_equal(first.image, face.draw_example(3, 24).image)


def test_no_global_random_state_is_used():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    face.draw_example(0, 0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_shapes_and_ranges(examples):
    for example in examples:
        assert example.image.shape == (48, 48)
        assert example.image.dtype == np.uint8
        assert example.evidence_mask.shape == (48, 48)
        assert example.evidence_mask.dtype == bool
        assert example.action_units.shape == (15,)
        assert example.action_units.dtype == np.float32
        assert example.action_units.max() <= 1
        # Neither flat nor overexposed.
        assert example.image.std() > 15
        assert np.mean((example.image == 0) | (example.image == 255)) < 0.6


@pytest.mark.parametrize("pair", list(itertools.combinations(face.LABELS, 2)), ids="-".join)
def test_no_set_of_action_units_fits_two_expressions(pair):
    # A set that met both definitions would contain all units that either requires and none that
    # either excludes, so it is enough that one requires a unit that the other excludes.
    assert any(
        {*face.REQUIRED[a]} - {*face.REQUIRED[b], *face.OPTIONAL[b]}
        for a, b in (pair, reversed(pair))
    )


def test_every_example_shows_its_label_and_no_other(examples):
    for example in examples:
        assert expressions_of(example.action_units) == [face.LABELS[example.label]]
        at_work = example.action_units[example.action_units > 0]
        assert (at_work >= face.LEAST_INTENSITY).all()


def test_weakest_expressions_differ_visibly_in_every_scene():
    # One person in one scene with all action units at their minimum: for any two expressions, some
    # pixels differ by more than twice the strongest noise, with any occluder.
    weakest = np.zeros((7, 15, 2), np.float32)
    for row, label in enumerate(face.LABELS):
        at_work = [NUMBERS.index(number) for number in face.REQUIRED[label]]
        weakest[row, at_work] = face.LEAST_INTENSITY
    rng = np.random.default_rng(0)
    occluders = set()
    for _ in range(150):
        person, scene = random_person(rng), random_scene(rng)
        occluders.add(scene.occluder)
        faces = drawn(person, scene, weakest)
        differing = (abs(faces[:, None] - faces[None]) > 0.06).sum((2, 3))
        assert differing[~np.eye(7, dtype=bool)].min() >= 12, scene
    assert occluders == set(OCCLUDERS)


def test_occluders_do_not_hide_all_evidence():
    rng = np.random.default_rng(1)
    for i in range(150):
        person, scene = random_person(rng), random_scene(rng)
        intensities = face.random_intensities(rng, face.LABELS[i % 6])
        pair = np.stack([np.zeros_like(intensities), intensities])
        bare = dataclasses.replace(scene, occluder="none")
        (rest, moved), (bare_rest, bare_moved) = (drawn(person, s, pair) for s in (scene, bare))
        left = (abs(moved - rest) > 0.04).sum() / (abs(bare_moved - bare_rest) > 0.04).sum()
        assert left > 1 / 3, scene


def test_the_evidence_mask_covers_the_pixels_that_change(examples, monkeypatch):
    # The same pictures, including noise, without action units.
    original = face.random_intensities
    monkeypatch.setattr(face, "random_intensities", lambda *args: 0 * original(*args))
    for index, example in enumerate(examples[:14]):
        rest = face.draw_example(0, index)
        assert not rest.evidence_mask.any()
        changed = abs(example.image.astype(int) - rest.image) > 0
        strongly = abs(example.image.astype(int) - rest.image) > 38
        if face.LABELS[example.label] == "neutral":
            assert not example.evidence_mask.any()
            assert not changed.any()
            continue
        assert 0.02 < example.evidence_mask.mean() < 0.35
        assert changed[example.evidence_mask].mean() > 0.9
        assert example.evidence_mask[strongly].mean() > 0.95


@pytest.mark.parametrize("number", NUMBERS)
def test_each_action_unit_moves_its_own_part_of_the_face(number):
    # A face from the front: eyes in row 20, nostrils in row 29, mouth in row 36 or so.
    rng = np.random.default_rng(2)
    straight = dict.fromkeys(
        ("roll", "yaw", "pitch", "shift_x", "shift_y", "light_x", "light_y"), 0
    )
    frontal = {**straight, "scale": 19, "occluder": "none"}
    person = random_person(rng)
    scene = dataclasses.replace(random_scene(rng), **frontal)
    halves = np.zeros((3, 15, 2), np.float32)
    halves[1, NUMBERS.index(number)] = 1
    halves[2, NUMBERS.index(number), 0] = 1
    rest, moved, left = drawn(person, scene, halves)
    rows, columns = np.nonzero(abs(moved - rest) > 0.04)
    assert len(rows) > 10
    if number in (1, 2, 4, 5, 7):
        assert rows.max() < 29
    elif number in (12, 15, 16, 17, 20, 23, 25, 26):
        assert rows.min() > 20
    elif number == 6:
        assert rows.min() < 24 < rows.max() < 36
    else:  # 9 pulls the brows down, wrinkles the nose, and lifts the fold and the upper lip.
        assert rows.min() < 20
        assert 29 < rows.max() < 43
    # Both halves alike, and one half for the units that can act on one side.
    assert abs(columns.mean() - 23.5) < 1.5
    if number in (1, 2, 4, 5, 6, 7, 12, 15, 20):
        assert (abs(left - rest) > 0.04)[:, :24].sum() > 3 * (abs(left - rest) > 0.04)[:, 25:].sum()


def test_cropping_does_not_change_the_drawing(monkeypatch, examples):
    def whole(canvas, *box):
        part = object.__new__(drawing._Canvas)
        part.__dict__.update(canvas.__dict__)
        return part

    monkeypatch.setattr(drawing._Canvas, "crop", whole)
    for index in range(14):
        image = face.draw_example(0, index).image
        # One grey level of rounding.
        assert abs(image.astype(int) - examples[index].image).max() <= 1


def test_linear_probe_fails(examples):
    # 420 faces of 30 people for training, 140 of 10 others for testing.
    pixels = np.stack([example.image.ravel() for example in examples]).astype(np.float32)
    labels = np.array([example.label for example in examples])
    scaler = StandardScaler().fit(pixels[:420])
    probe = RidgeClassifier(alpha=1e4).fit(scaler.transform(pixels[:420]), labels[:420])
    assert probe.score(scaler.transform(pixels[420:]), labels[420:]) < 0.5


@pytest.fixture
def builder(tmp_path, monkeypatch):
    monkeypatch.setattr(Builder, "SUBJECTS", SUBJECTS)
    builder = Builder(data_dir=tmp_path)
    common.prepare(builder)
    return builder


def test_the_prepared_dataset_equals_the_drawn_faces(builder):
    keys, people = set(), {}
    for split, subjects in SUBJECTS.items():
        source = builder.as_data_source(split=split)
        assert len(source) == subjects * face.FACES_PER_SUBJECT
        labels = [example["label"] for example in source]
        assert (np.bincount(labels) == len(source) // 7).all()
        people[split] = {example["subject"] for example in source}
        assert len(people[split]) == subjects
        for example in source:
            key = example["key"].decode()
            keys.add(key)
            name, index = key.split("_")
            assert name == split
            expected = face.draw_example(0, int(index))
            np.testing.assert_array_equal(example["image"][..., 0], expected.image)
            np.testing.assert_array_equal(
                example["evidence_mask"][..., 0] == 255, expected.evidence_mask
            )
            assert set(np.unique(example["evidence_mask"])) <= {0, 255}
            np.testing.assert_array_equal(example["action_units"], expected.action_units)
            assert example["label"] == expected.label
    assert len(keys) == sum(SUBJECTS.values()) * face.FACES_PER_SUBJECT
    assert len(set.union(*people.values())) == sum(SUBJECTS.values())  # subject-independent
    assert builder.info.features["label"].names == list(face.LABELS)


def test_no_tensorflow(tmp_path):
    # In a separate process, as other tests may import TensorFlow.
    code = f"""
import sys
from datasets import common
from datasets.synthetic_faces.synthetic_faces_dataset_builder import Builder
Builder.SUBJECTS = {{"train": 1}}
builder = Builder(data_dir={str(tmp_path)!r})
common.prepare(builder)
assert builder.as_data_source(split="train")[0]["image"].shape == (48, 48, 1)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
