"""The evaluation commands as users run them, on a short training."""

import csv
import json
import shutil

import numpy as np
import pytest
from commands import ROOT, fails, run, train_arguments
from PIL import Image

import datasets.load
import eval as evaluation
from configs import default
from deep_emotion_jax.constants import LABELS
from deep_emotion_jax.data.folds import Dataset
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.runs import read_run
from deep_emotion_jax.evaluation.views import predict_views
from deep_emotion_jax.nn.weights import load_model
from deep_emotion_jax.pretrained import load_pretrained


def test_evaluate_reproduces_the_scores_of_the_run(prepared, finished, tmp_path):
    workdir = finished[0]
    path = tmp_path / "predictions.csv"
    done = run(
        "eval.py",
        "evaluate",
        f"--workdir={workdir}",
        f"--data-dir={prepared}",
        f"--predictions={path}",
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    accuracy = summary["accuracy"]["test"]
    assert f"{100 * accuracy:.2f}" in done.stdout
    stored = json.loads((workdir / "evaluate_test.json").read_text())
    assert stored["over_runs"]["mean"] == accuracy
    assert (
        stored["runs"]["official-seed-0"]["confusion_matrix"]
        == (summary["runs"][0]["test"]["confusion_matrix"])
    )
    rows = list(csv.DictReader(path.open()))
    assert len({row["key"] for row in rows}) == 35
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == pytest.approx(accuracy)
    shares = np.array([[float(row[name]) for name in summary["classes"]] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=5e-4)


def test_a_shipped_network_is_scored_on_renamed_classes(prepared, tmp_path):
    classes, record = tmp_path / "classes.json", tmp_path / "record.json"
    classes.write_text(json.dumps({"neutral": None, "disgust": "angry"}))
    arguments = ("--model=deep_emotion.fer2013", "--dataset=synthetic_faces")
    data = (f"--data-dir={prepared}", f"--classes={classes}", f"--json={record}")
    done = run("eval.py", "evaluate", *arguments, *data)
    assert done.returncode == 0, done.stderr
    stored = json.loads(record.read_text())
    matrix = np.array(stored["runs"][0]["test"]["confusion_matrix"])
    assert matrix.sum() == 30  # 35 without the neutral faces
    assert matrix.sum(1).max() == 10
    assert len(stored["subjects"]) == 1
    done = run("eval.py", "table", f"--runs={tmp_path}", f"--json={record}")
    assert "deep_emotion.fer2013" in done.stdout, done.stderr


def test_calibrate_saves_a_network_that_predicts_with_its_temperature(prepared, tmp_path):
    path = tmp_path / "new.safetensors"
    arguments = ("--model=deep_emotion.fer2013", "--dataset=synthetic_faces", f"--save={path}")
    done = run("eval.py", "calibrate", *arguments, f"--data-dir={prepared}")
    assert done.returncode == 0, done.stderr
    old, new = load_pretrained("deep_emotion.fer2013"), load_model(path)
    temperature = new.about["temperature"]
    assert f"temperature {temperature:.4f}" in done.stdout
    errors = new.about["calibration_error"]["one view"]
    assert errors["after"] < errors["before"]
    images = np.random.default_rng(0).random((2, 48, 48, 1), np.float32)
    np.testing.assert_array_equal(new.model(images), old.model(images))
    assert (new.classes, new.settings) == (old.classes, old.settings)


def accuracy_of_views(workdir, prepared, split, choice):
    (trained,) = read_run(workdir).networks.values()
    config = default.get_config()
    config.data_dir = str(prepared)
    faces = datasets.load.load_dataset(config, [split]).splits[split]
    right = predict_views(trained.model, faces.images, choice).argmax(1) == faces.labels
    return right.mean()


def test_flip_averaging_has_its_own_files(prepared, finished):
    workdir = finished[0]
    done = run("eval.py", "evaluate", f"--workdir={workdir}", f"--data-dir={prepared}", "--flip")
    assert "averaged over face and mirror image" in done.stdout
    stored = json.loads((workdir / "evaluate_test_flip.json").read_text())
    assert stored["over_runs"]["mean"] == pytest.approx(
        accuracy_of_views(workdir, prepared, "test", "mirror")
    )


def test_ten_crops_have_their_own_row(prepared, finished, tmp_path):
    workdir, file = finished[0], tmp_path / "ten.json"
    data = (f"--workdir={workdir}", f"--data-dir={prepared}", "--split=validation")
    done = run("eval.py", "evaluate", *data, "--tta=ten", f"--json={file}")
    assert "averaged over ten crops" in done.stdout
    expected = accuracy_of_views(workdir, prepared, "validation", "ten")
    record = json.loads(file.read_text())
    assert record["over_runs"]["validation"]["mean"] == pytest.approx(expected)
    assert "(validation, ten crops)" in run("eval.py", "table", f"--json={file}").stdout


def test_table_lists_results_that_were_not_run(finished):
    done = run("eval.py", "table", f"--runs={finished[0].parent}", "--all")
    lines = done.stdout.splitlines()
    assert sum("not run" in line for line in lines) == 7
    assert any("FER-2013" in line and "70.02" in line for line in lines)


def test_table_of_finished_runs(tmp_path):
    interval = {"interval95": [0.5, 0.7]}
    summary = {
        "dataset": "ck_plus",
        "protocol": "subjects",
        "over_runs": {
            "test": {"mean": 0.8412, "std": 0.05, "count": 10, "interval95": [0.8, 0.88]}
        },
        "runs": [{"test": interval}],
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "summary.json").write_text(json.dumps(summary))
    done = run("eval.py", "table", f"--runs={tmp_path}")
    (line,) = [line for line in done.stdout.splitlines() if "mine" in line]
    for cell in ("CK+", "subject-independent", "not given", "84.12 ± 5.00", "80.00 to 88.00", "10"):
        assert cell in line
    (tmp_path / "mine" / "summary.json").write_text("{}")
    fails("eval.py", "table", f"--runs={tmp_path}", words=("mine/summary.json",))


def test_interpolate_writes_a_network(tmp_path):
    path = tmp_path / "between.safetensors"
    name = "deep_emotion.fer2013"
    done = run("eval.py", "interpolate", "--models", name, name, "--share=0.3", f"--save={path}")
    assert done.returncode == 0, done.stderr
    old, new = load_pretrained(name), load_model(path)
    np.testing.assert_allclose(new.model.fc1.kernel, old.model.fc1.kernel, atol=1e-6)
    assert new.about["first"] == old.about
    assert new.about["share"] == 0.3
    assert "temperature" not in new.about
    wide = "deep_emotion_wide.fer2013"
    both = ("eval.py", "interpolate", f"--save={path}", "--models", name)
    fails(*both, wide, words=("fine-tuned copy",))
    fails(*both, name, "--share=2", words=("--share 2",))


def test_seeds_train_together(prepared, tmp_path):
    arguments = train_arguments(prepared, tmp_path, epochs=1)[1:]
    done = run("eval.py", "seeds", "--num=2", *arguments)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["seed"] for entry in summary["runs"]] == [0, 1]
    accuracies = [entry["test"]["accuracy"] for entry in summary["runs"]]
    assert summary["over_runs"]["test"]["mean"] == pytest.approx(np.mean(accuracies))
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 2

    out = tmp_path / "robustness"
    compare = ("robustness", f"--workdirs={tmp_path}", f"--out={out}", f"--data-dir={prepared}")
    done = run("eval.py", *compare)
    assert done.returncode == 0, done.stderr
    with Image.open(out / "robustness.png") as image:
        image.load()  # test_figures.py reads what it shows
    shifted = json.loads((out / "robustness.json").read_text())["accuracy"][tmp_path.name]["shift"]
    assert [runs[0] for runs in shifted] == accuracies  # one line per seed; the first is unchanged
    mean, deviation = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
    assert f"{mean:.1f} ± {deviation:.1f}" in done.stdout


def test_user_errors_are_one_message(prepared, finished, tmp_path):
    data = f"--data-dir={prepared}"
    fails("eval.py", "evaluate", f"--workdir={tmp_path}", data, words=(tmp_path, "main.py"))
    fails(
        "eval.py",
        "evaluate",
        "--model=nobody",
        "--dataset=synthetic_faces",
        data,
        words=("nobody",),
    )
    fails("eval.py", "cross-validate", f"--config.data_dir={prepared}", words=("--config",))
    damaged = tmp_path / "damaged"
    shutil.copytree(finished[0], damaged)
    saved = json.loads((damaged / "config.json").read_text())
    saved["config"]["seed"] = "zero"
    (damaged / "config.json").write_text(json.dumps(saved))
    fails("eval.py", "evaluate", f"--workdir={damaged}", data, words=("config.json", "seed"))
    config = f"--config={ROOT / 'configs' / 'synthetic_faces.py'}"
    data_dir = f"--config.data_dir={prepared}"
    fails("eval.py", "cross-validate", config, data_dir, words=("subjects",))
    unknown = ("--model=deep_emotion.fer2013", "--dataset-config=other")
    fails("eval.py", "evaluate", *unknown, words=("other", "ferplus"))


def test_works_from_any_folder(finished, prepared, tmp_path):
    done = run(
        *(ROOT / "eval.py", "evaluate", f"--workdir={finished[0]}", f"--data-dir={prepared}"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_evaluate_finds_the_data_of_the_run(finished, tmp_path):
    done = run(ROOT / "eval.py", "evaluate", f"--workdir={finished[0]}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "35 images" in done.stdout


def test_only_the_scored_split_is_read(prepared, tmp_path):
    """The files of the other splits are damaged."""
    shutil.copytree(prepared, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.array_record*"):
        if "-validation." not in path.name:
            path.write_bytes(b"")
    model = ("--model=deep_emotion.fer2013", "--dataset=synthetic_faces")
    data = (f"--data-dir={tmp_path / 'data'}", "--split=validation")
    done = run("eval.py", "evaluate", *model, *data)
    assert done.returncode == 0, done.stderr
    assert "35 images" in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("evaluate", ("--flip", "--split", "default: test", "eval.py evaluate --workdir")),
        ("cross-validate", ("--config", "--workdir", "runs/NAME_subjects")),
        ("seeds", ("--num", "default: 5")),
        ("table", ("--all", "default: runs")),
    ],
)
def test_help_lists_the_options(command, words):
    done = run("eval.py", command, "--help")
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout


def test_a_split_is_scored_without_a_training_split(monkeypatch, capsys):
    images = np.random.default_rng(0).integers(0, 256, (14, 48, 48, 1), dtype=np.uint8)
    keys = [f"face-{i}" for i in range(14)]
    faces = Split(images, np.arange(14, dtype=np.int32) % 7, keys, [""] * 14, copies=[""] * 14)

    def load(config, splits=None):
        if splits != ["validation"]:
            raise UserError(f"no split {splits}")
        return Dataset("fer2013", {"validation": faces}, list(LABELS))

    monkeypatch.setattr(datasets.load, "load_dataset", load)
    model = ("--model", "deep_emotion.fer2013", "--dataset", "fer2013")
    options = evaluation.make_parser().parse_args(["evaluate", *model, "--split", "validation"])
    options.function(options)
    said = capsys.readouterr().out
    assert "14 images" in said
    assert "copies" not in said
