"""Faces keep their track numbers; probabilities are averaged over time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.inference.tracking import (
    LOST_SECONDS,
    Sighting,
    Smoother,
    Tracker,
    look,
    overlap,
)

# Eyes, nose and mouth in a face of side 1.
FACE = np.array([(-0.18, -0.12), (0.18, -0.12), (0, 0.05), (-0.15, 0.22), (0.15, 0.22)])
RATE = 25


def face(x, y, side=50.0, looks=None):
    return Sighting(Box.around(x, y, side), FACE * side + (x, y), looks)


def looks(seed):
    return look(np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8))


def crossing(time):
    """Two faces that approach each other at 2.4 sides per second and meet after 2 seconds."""
    return face(100 + 120 * time, 200), face(580 - 120 * time, 205)


def times(seconds, rate=RATE):
    return np.arange(round(seconds * rate)) / rate


def test_two_faces_cross_and_one_is_hidden():
    tracker = Tracker()
    for time in times(4):
        one, two = crossing(time)
        if abs(two.box.left - one.box.left) < one.box.side:
            assert tracker.update(time, [one]) == [1]
        else:
            assert tracker.update(time, [two, one]) == [2, 1]


@pytest.mark.parametrize("rate", [5, 10, 60])
def test_a_face_comes_back_after_a_second(rate):
    """It keeps moving while hidden, next to another face that does not move."""
    tracker = Tracker()
    for time in times(4, rate):
        walker, other = face(100 + 80 * time, 200), face(90, 320)
        if 1.5 <= time < 2.5:
            assert tracker.update(time, [other]) == [1]
        else:
            assert tracker.update(time, [other, walker]) == [1, 2]


def test_two_hidden_faces_keep_moving():
    """Faces without appearance: only the direction of movement identifies them."""
    tracker = Tracker()
    for time in times(4):
        one, two = crossing(time)
        if abs(two.box.left - one.box.left) > 1.2 * one.box.side:
            assert tracker.update(time, [one, two]) == [1, 2]
        else:
            tracker.update(time, [])


def test_frame_times_may_vary():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    time = 0.0
    for _ in range(200):
        time += rng.exponential(0.05)
        walker, other = face(100 + 60 * time, 200), face(1000 - 60 * time, 400)
        assert tracker.update(time, [walker, other]) == [1, 2]


def test_a_face_that_is_gone_for_long_gets_a_new_number():
    tracker = Tracker()
    for time in times(1):
        assert tracker.update(time, [face(100, 100)]) == [1]
    for time in 1 + times(LOST_SECONDS + 0.1):
        assert tracker.update(time, []) == []
    assert not tracker.alive
    assert tracker.update(1 + LOST_SECONDS + 0.2, [face(100, 100)]) == [2]


def test_distant_faces_and_other_sizes_get_new_numbers():
    for stranger in (face(300, 100), face(100, 100, 120.0), face(100, 100, 20.0)):
        tracker = Tracker()
        for time in times(1):
            tracker.update(time, [face(100, 100)])
        assert tracker.update(1.04, [stranger]) == [2]


def test_appearance_decides_between_equally_near_faces():
    """Both turned back while hidden; each is at the predicted position of the other."""
    ann, bob = looks(0), looks(1)
    tracker = Tracker()
    for time in times(1):
        tracker.update(time, [face(100, 100, looks=ann), face(150, 100, looks=bob)])
    assert tracker.update(1.5, [face(120, 100, looks=bob), face(130, 100, looks=ann)]) == [2, 1]


def test_landmarks_are_used_as_well_as_boxes():
    """Two heads close together, one upside down; boxes alone would swap their numbers."""

    def both(one, other):
        turned = Sighting(Box.around(other, 100, 50), (other, 100) - 50 * FACE)
        return [face(one, 100), turned]

    tracker = Tracker()
    for time in times(1):
        tracker.update(time, both(100, 108))
    assert tracker.update(1, both(105, 103)) == [1, 2]


def test_a_partly_covered_face_keeps_its_number():
    tracker = Tracker()
    for time in times(1):
        tracker.update(time, [face(320, 200), face(400 - 30 * time, 200)])
    for i, time in enumerate(1 + times(1)):
        free = max(24, 50 - 3 * i)
        tracker.update(time, [face(320, 200), face(395 - free / 2, 200, free)])
    for time in 2 + times(0.8):
        assert tracker.update(time, [face(320, 200)]) == [1]
    assert tracker.update(2.8, [face(320, 200), face(340, 200)]) == [1, 2]


def test_a_crowd_with_noise_and_missed_detections():
    """12 persons on random walks, with 5 % missed detections and the noise of YuNet's boxes."""
    rng = np.random.default_rng(0)
    people = 12
    place = np.stack(np.meshgrid([100.0, 300, 500, 700], [100.0, 300, 500]), -1).reshape(-1, 2)
    velocity = np.zeros((people, 2))
    tracker, numbers = Tracker(), {}
    switches = 0
    for time in times(8, 15):
        velocity += rng.normal(0, 12, (people, 2)) - 0.1 * velocity
        place = place + velocity / 15
        seen = [i for i in rng.permutation(people) if time == 0 or rng.random() > 0.05]
        noise = rng.normal(0, 1.5, (people, 2))
        side = 50 * np.exp(rng.normal(0, 0.03, people))
        found = tracker.update(time, [face(*(place[i] + noise[i]), side[i]) for i in seen])
        assert len(set(found)) == len(found)
        for i, number in zip(seen, found, strict=True):
            switches += numbers.get(i, number) != number
            numbers[i] = number
    assert switches == 0
    assert max(numbers.values()) == people


boxes = st.builds(Box, st.floats(-50, 500), st.floats(-50, 500), st.floats(1, 300))
sightings = st.builds(
    lambda box, marked: face(*box.centre, box.side) if marked else Sighting(box),
    boxes,
    st.booleans(),
)
frames = st.lists(
    st.tuples(st.floats(0, 5), st.lists(sightings, max_size=5, unique_by=lambda s: s.box)),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(frames, st.randoms(use_true_random=False))
def test_the_order_of_the_faces_has_no_effect(frames, random):
    one, other = Tracker(), Tracker()
    time = 0.0
    for step, faces in frames:
        time += step
        order = list(range(len(faces)))
        random.shuffle(order)
        expected = one.update(time, faces)
        found = other.update(time, [faces[i] for i in order])
        assert found == [expected[i] for i in order]
        # Every face has its own number, and numbers are not reused.
        assert len(set(found)) == len(found)
        assert set(found) <= other.alive


def test_overlap():
    assert overlap(Box(0, 0, 2), Box(0, 0, 2)) == 1
    assert overlap(Box(0, 0, 2), Box(1, 1, 2)) == pytest.approx(1 / 7)
    assert overlap(Box(0, 0, 2), Box(2, 0, 2)) == 0


def test_look_is_invariant_to_brightness_and_contrast():
    pixels = np.random.default_rng(0).integers(100, 150, (48, 48), dtype=np.uint8)
    assert look(pixels) @ look(2 * pixels - 100) == pytest.approx(1)
    np.testing.assert_array_equal(look(np.full((48, 48), 7, np.uint8)), np.zeros(144))


def test_smoothing_is_a_weighted_mean():
    """The recursion against the explicit sum, at irregular times with two interleaved tracks."""
    rng = np.random.default_rng(0)
    moments = np.cumsum(rng.exponential(0.1, 50))
    answers = rng.dirichlet(np.ones(7), (2, 50))
    smoother = Smoother(0.5)
    for i, now in enumerate(moments):
        weights = np.exp((moments[: i + 1] - now) / 0.5)
        for track in (0, 1):
            expected = np.average(answers[track, : i + 1], axis=0, weights=weights)
            found = smoother.update(track, now, answers[track, i])
            np.testing.assert_allclose(found, expected)


def test_smoothing_of_a_step():
    """At a constant frame rate, the response to a step is 1 - exp(-t / window) in the limit."""
    smoother = Smoother(0.5)
    for i in range(-10_000, 0):
        smoother.update(1, i / 1000, np.array([0.0]))
    for i in range(1, 1001):
        found = smoother.update(1, i / 1000, np.array([1.0]))
        assert found == pytest.approx(1 - np.exp(-i / 1000 / 0.5), abs=2e-3)


def test_smoothing_off_and_forgotten():
    answers = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    off = Smoother(0)
    for i, answer in enumerate(answers):
        assert off.update(1, i / 10, answer) is answer
    smoother = Smoother(1)
    smoother.update(1, 0.0, answers[0])
    smoother.update(2, 0.0, answers[0])
    smoother.keep({2})
    np.testing.assert_allclose(smoother.update(1, 0.1, answers[1]), answers[1])
    assert not np.allclose(smoother.update(2, 0.1, answers[1]), answers[1])
