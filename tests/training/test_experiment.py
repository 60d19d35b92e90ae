"""The labels setting of a config selects the labels that a training uses."""

import dataclasses

import numpy as np
import pytest

from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.experiment import with_soft_labels

CLASSES = ("a", "b")
RUNS = [Run(Fold("all", np.arange(3), np.arange(3, 4), np.arange(0)), 0)]


@pytest.fixture
def votes():
    images = np.zeros((4, 48, 48, 1), np.uint8)
    soft = np.array([[0.2, 0.8], [1, 0], [0.5, 0.5], [0, 1]], np.float32)
    return Split(images, np.array([1, 0, 0, 1], np.int32), [*"wxyz"], [""] * 4, None, soft)


def test_votes_replace_the_labels(votes):
    experiment, data = with_soft_labels(Experiment(labels="votes"), votes, RUNS, CLASSES)
    assert data is votes
    # The loss is the cross-entropy against the votes alone; see test_distill.py.
    assert experiment.recipe.teacher_share == 1
    assert dataclasses.replace(experiment, recipe=Experiment().recipe, labels="majority") == (
        Experiment()
    )


def test_the_majority_label_ignores_the_votes(votes):
    experiment, data = with_soft_labels(Experiment(), votes, RUNS, CLASSES)
    assert experiment == Experiment()
    assert data.soft_labels is None


def test_missing_votes_and_votes_with_a_teacher_are_refused(votes):
    without = votes._replace(soft_labels=None)
    with pytest.raises(UserError, match=r"needs votes, which synthetic_faces lacks.*ferplus"):
        with_soft_labels(Experiment(labels="votes"), without, RUNS, CLASSES)
    with pytest.raises(UserError, match="use one of them"):
        with_soft_labels(
            Experiment(labels="votes", teacher="deep_emotion.fer2013"), votes, RUNS, CLASSES
        )
