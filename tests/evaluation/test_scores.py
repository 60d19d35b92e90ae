"""Scores of networks on one split, from hand-made logits."""

from types import SimpleNamespace

import numpy as np
import pytest

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation import runs, scores
from deep_emotion_jax.evaluation.comparison import records_table


def faces(labels, keys, copies=None, subjects=None):
    count = len(labels)
    return Split(
        np.zeros((count, 48, 48, 1), np.uint8),
        np.asarray(labels, np.int32),
        list(keys),
        subjects or [""] * count,
        copies=copies,
    )


def network(name, split, copies=None):
    return runs.Scored(name, SimpleNamespace(classes=("a", "b")), split, copies)


def test_copies_are_those_of_the_training_split():
    train = faces([0, 0], ["t0", "t1"], ["", ""])
    test = faces([0] * 4, ["e0", "e1", "e2", "e3"], ["", "t1", "e0", "t0"])
    assert runs.copies_of_training(test, train).tolist() == [False, True, False, True]


def test_accuracies_with_and_without_copies_are_reported():
    copies = np.array([False, True, False, True])
    split = faces([0, 0, 1, 1], "abcd", subjects=["S", "S", "T", ""])
    logits = np.array(
        [[1.0, 0], [1, 0], [1, 0], [0, 1]]
    )  # right, right (copy), wrong, right (copy)
    result = scores.score(network("mine", split, copies), logits)
    assert result.without_copies[:2] == (2, 0.5)
    text = scores.describe([result])
    assert "without the 2 copies of training faces: 50.00%" in text
    assert "2 subjects" in text
    record = scores.record([result], "test", {"dataset": "fer2013", "protocol": "official"})
    assert record["over_runs"]["test"]["mean"] == 0.75
    assert record["without_copies"]["test"]["mean"] == 0.5
    assert [group["subject"] for group in record["subjects"]] == ["T", "S"]
    row = records_table([{**record, "name": "mine", "command": "eval.py"}]).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")][5] == "75.0"
    assert [cell.strip() for cell in row.split("|")][7] == "50.0"


def test_two_networks_have_a_mean_and_unknown_copies_none():
    split = faces([0, 1], "ab")
    found = [
        scores.score(network(name, split), np.array(logits, float))
        for name, logits in (("x", [[1, 0], [0, 1]]), ("y", [[1, 0], [1, 0]]))
    ]
    text = scores.describe(found)
    assert "accuracy over 2 runs: 75.00%" in text
    assert "copies" not in text
    assert "subject" not in text
    assert scores.record(found, "test", {})["without_copies"] == {"test": None}


def test_classes_are_renamed_merged_and_dropped():
    split = faces([0, 1, 2, 3], "abcd")
    names = {"joy": "happy", "grin": "happy", "contempt": None}
    chosen, classes = runs.rename_classes(split, ["grin", "contempt", "joy", "sad"], names)
    assert classes == ["happy", "sad"]
    assert (chosen.keys, chosen.labels.tolist()) == (["a", "c", "d"], [0, 0, 1])
    with pytest.raises(UserError, match="no class 'fun'"):
        runs.rename_classes(split, ["grin", "contempt", "joy", "sad"], {"fun": "happy"})
    with pytest.raises(UserError, match="no image is left"):
        runs.rename_classes(faces([0], "a"), ["joy"], {"joy": None})
