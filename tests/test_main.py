"""The command as a user runs it: results, resuming after a kill, errors without tracebacks."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import ROOT, fails, run, train_arguments
from PIL import Image

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def checkpoint(workdir, epoch):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        return manager.restore(epoch, args=args).state


def test_a_run_leaves_its_results_where_it_says(finished):
    workdir, output = finished
    assert str(workdir) in output.splitlines()[-1]
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["parameters"] == 47_657
    assert summary["runs"][0]["examples"] == {"train": 140, "validation": 35, "test": 35}
    assert set(summary["accuracy"]) == {"validation", "test"}
    matrix = np.array(summary["runs"][0]["test"]["confusion_matrix"])
    assert matrix.sum() == 35
    assert summary["accuracy"]["test"] == pytest.approx(np.trace(matrix) / 35)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = max(line["validation_accuracy"] for line in lines)
    assert summary["accuracy"]["validation"] == pytest.approx(best)
    for name in ("confusion_test.png", "confusion_validation.png", "curves.png", "regions.png"):
        assert Image.open(workdir / name).size[0] > 200
    assert list((workdir / "tensorboard").glob("*/events.*"))
    assert json.loads((workdir / "config.json").read_text())["config"]["num_epochs"] == 3


def test_killed_and_started_again_ends_with_the_same_bits(prepared, finished, tmp_path):
    workdir = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, *train_arguments(prepared, workdir)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(*train_arguments(prepared, workdir))
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stdout
    straight, cut = checkpoint(finished[0], 3), checkpoint(workdir, 3)
    flat = [np.asarray(leaf) for leaf in _leaves(straight)]
    other = [np.asarray(leaf) for leaf in _leaves(cut)]
    assert len(flat) == len(other) > 30
    for a, b in zip(flat, other, strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for branch in tree for leaf in _leaves(branch)]
    return [] if tree is None else [tree]


def test_another_config_on_the_same_workdir_is_refused(prepared, finished):
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
        ("--config.num_epoch=3", ("num_epoch",)),
        ("--config=configs/fer2014.py", ("fer2014",)),
        ("--config.protocol=subject", ("'subject'", "subjects")),
    ],
)
def test_a_typo_is_one_message(tmp_path, prepared, argument, words):
    settings = (f"--workdir={tmp_path}", f"--config.data_dir={prepared}")
    fails("main.py", argument, *settings, words=words)
