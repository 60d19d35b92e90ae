"""Accuracies by subject, against counts by hand."""

import numpy as np
import pytest

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation.metrics import class_scores, wilson_interval
from deep_emotion_jax.evaluation.subgroups import by_subject


def faces(keys, subjects):
    count = len(keys)
    images = np.zeros((count, 48, 48, 1), np.uint8)
    return Split(images, np.zeros(count, np.int32), list(keys), list(subjects))


def test_subjects_have_accuracy_and_interval_lowest_first():
    groups = by_subject(faces("abcde", "AABBB"), np.array([1, 1, 1, 0, 0], bool))
    assert [(g.subject, g.images, g.accuracy) for g in groups] == [
        ("B", 3, pytest.approx(1 / 3)),
        ("A", 2, 1.0),
    ]
    # Wilson (1927) for 2 of 2: 2 / (2 + 1.96^2) to 1.
    assert groups[1].interval95 == pytest.approx((2 / (2 + 1.959964**2), 1))


def test_an_image_scored_by_two_networks_counts_once():
    (group,) = by_subject(faces("abab", "SSSS"), np.array([1, 1, 0, 1], bool))
    assert (group.images, group.accuracy) == (2, 0.75)
    assert group.interval95 == wilson_interval(1.5, 2)


def test_unnamed_subjects_have_no_accuracy():
    assert by_subject(faces("ab", ["", ""]), np.array([True, False])) == []


def test_class_scores_by_hand():
    # Class 0: 3 images right, 1 predicted as class 1. Class 2 does not occur.
    scores = class_scores(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    assert scores[0] == (0.6, 0.75, pytest.approx(2 / 3), 4)
    assert scores[2] == (None, None, None, 0)
