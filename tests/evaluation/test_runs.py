"""Finished runs are read, and each network is scored on images that it was not trained on."""

import json

import numpy as np
import pytest

from deep_emotion_jax.data.folds import Dataset, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.runs import (
    FinishedRun,
    faces_of_run,
    in_order_of,
    read_class_names,
    read_run,
)


def split(count, offset=0):
    keys = [f"k{i + offset}" for i in range(count)]
    subjects = [f"s{i % 4}" for i in range(count)]
    images = np.arange(offset, offset + count, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (count, 48, 48, 1))
    return Split(images, np.arange(count, dtype=np.int32) % 3, keys, subjects)


CLASSES = ["a", "b", "c"]


def finished(protocol, fingerprint, names):
    config = {"dataset": "jaffe", "protocol": protocol}
    return FinishedRun(None, config, {}, fingerprint, dict.fromkeys(names))


def test_labels_follow_the_classes_of_the_network():
    faces = split(6)
    ordered = in_order_of(["c", "x", "a", "b"], faces, ["a", "b", "c"])
    np.testing.assert_array_equal(ordered.labels, [2, 3, 0, 2, 3, 0])
    np.testing.assert_array_equal(ordered.images, faces.images)
    with pytest.raises(UserError, match="no class 'd'"):
        in_order_of(["a", "b"], faces, ["a", "b", "d"])


def test_every_network_gets_the_test_images_of_its_own_fold():
    data = split(12)
    dataset = Dataset("jaffe", {"all": data}, CLASSES)
    folds = make_folds(dataset, "subjects", 0)
    names = [f"{fold.name}-seed-0" for fold in folds]
    found = faces_of_run(finished("subjects", data.fingerprint(), names), dataset, "test")
    for fold, name in zip(folds, names, strict=True):
        assert found[name].keys == [data.keys[i] for i in fold.test]
    everything = faces_of_run(finished("subjects", "other", names), dataset, "all")
    assert all(len(faces.keys) == 12 for faces in everything.values())


def test_other_data_are_refused_if_test_images_could_be_training_images():
    run = finished("subjects", "other", ["subject-s0-seed-0"])
    with pytest.raises(UserError, match="the data differ from those of the run"):
        faces_of_run(run, Dataset("jaffe", {"all": split(12)}, CLASSES), "test")


def test_an_official_split_is_scored_without_the_others():
    run = finished("official", "other", ["official-seed-0"])
    found = faces_of_run(run, Dataset("jaffe", {"validation": split(5)}, CLASSES), "validation")
    assert len(found["official-seed-0"].keys) == 5


def test_folders_without_a_finished_run_are_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        read_run(tmp_path)
    config = {"config": {"protocol": "official"}, "runs": ["official-seed-0"], "fingerprint": ""}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not finished"):
        read_run(tmp_path)


GOOD = {"config": {"protocol": "official"}, "runs": ["a"], "fingerprint": "", "paths": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": []}, "damaged"),
        ({"config": {}}, "damaged"),
        ({"runs": "a"}, "damaged"),
        ({"runs": [1]}, "damaged"),
        ({"paths": None}, "damaged"),
        ({"fingerprint": None}, "damaged"),
        ({"runs": ["x" * 5000]}, "there is no such file"),
    ],
)
def test_a_run_with_a_damaged_config_is_refused(tmp_path, change, message):
    (tmp_path / "summary.json").touch()
    (tmp_path / "config.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(UserError, match=message):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": 1}', "\xff"])
def test_files_of_class_names_hold_strings_and_nulls(tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"classes\.json"):
        read_class_names(path)
    path.write_text('{"anger": "angry", "contempt": null}')
    assert read_class_names(path) == {"anger": "angry", "contempt": None}
