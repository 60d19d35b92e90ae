"""The training command: results, reproducibility, and errors without tracebacks."""

import json

import numpy as np
import pytest
from commands import fails, run, train_arguments
from PIL import Image

from deep_emotion_jax.nn.weights import load_model
from tests.faults import trainings

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_a_run_writes_its_results_to_the_printed_folder(finished):
    workdir, output = finished
    assert str(workdir) in output.splitlines()[-1]
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["parameters"] == 47_657
    assert summary["device"] == "2 x cpu"
    assert summary["steps_per_second"] == pytest.approx(3 * 9 / summary["seconds"])  # 140 / 16
    assert summary["runs"][0]["examples"] == {"train": 140, "validation": 35, "test": 35}
    assert set(summary["accuracy"]) == {"validation", "test"}
    matrix = np.array(summary["runs"][0]["test"]["confusion_matrix"])
    assert matrix.sum() == 35
    assert summary["accuracy"]["test"] == pytest.approx(np.trace(matrix) / 35)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    # 35 images are too few to choose an epoch: the final weights are kept.
    assert summary["accuracy"]["validation"] == pytest.approx(lines[-1]["validation_accuracy"])
    assert "final averaged weights: 35 validation images" in summary["runs"][0]["chosen"]
    assert summary["runs"][0]["restarts"] == 0
    for name in ("confusion_test.png", "confusion_validation.png", "curves.png", "regions.png"):
        assert Image.open(workdir / name).size[0] > 200
    assert f"{100 * summary['accuracy']['test']:.1f} %" in (workdir / "report.html").read_text()
    about = load_model(workdir / "weights" / "official-seed-0.safetensors").about
    assert 0.05 < about["temperature"] == summary["runs"][0]["temperature"] < 20
    assert list((workdir / "tensorboard").glob("*/events.*"))
    assert json.loads((workdir / "config.json").read_text())["config"]["num_epochs"] == 3


def test_two_runs_of_one_config_are_bitwise_identical(prepared, finished, tmp_path):
    again = run(*train_arguments(prepared, tmp_path))
    assert again.returncode == 0, again.stderr
    trainings.assert_same(tmp_path, finished[0])


def test_another_config_in_the_same_workdir_is_refused(prepared, finished):
    arguments = train_arguments(prepared, finished[0])
    words = ("config.model.dropout", "0.7", "0.2")
    fails(*arguments, "--config.model.dropout=0.7", words=words)


def test_missing_raw_data_says_where_to_get_it(tmp_path):
    fails(
        *("main.py", "--config=configs/fer2013.py", f"--config.data_dir={tmp_path}"),
        f"--config.manual_dir={tmp_path / 'nowhere'}",
        words=("nowhere", "msambare/fer2013"),
    )


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.dataset=ferr2013", ("ferr2013", "synthetic_faces")),
        ("--config.num_epoch=3", ('Did you mean "num_epochs"',)),
        ("--config.model.dropout_rate=0.1", ("unknown setting config.model.dropout_rate",)),
        ("--config=configs/fer2014.py", ("fer2014.py is not a Python file", "/configs")),
        ("--config=README.md", ("README.md is not a Python file",)),
        pytest.param(
            f"--config={'x' * 5000}.py", ("is not a Python file",), id="a name of 5,000 characters"
        ),
        ("--config.protocol=subject", ("'subject'", "subjects")),
    ],
)
def test_a_typo_gives_one_message(tmp_path, prepared, argument, words):
    settings = (f"--workdir={tmp_path}", f"--config.data_dir={prepared}")
    fails("main.py", argument, *settings, words=words)


def test_a_config_may_take_an_argument_and_read_files(tmp_path):
    config = tmp_path / "own.py"
    config.write_text(
        "from configs import default\n\n\ndef get_config(protocol):\n"
        "    config = default.get_config()\n    config.protocol = protocol\n    return config\n"
    )
    fails("main.py", f"--config={config}:subject", words=("'subject'", "subjects"))
    config.write_text(f"open({str(tmp_path / 'nowhere.txt')!r})\n")
    fails("main.py", f"--config={config}", words=("nowhere.txt",))
