"""The lines of metrics.jsonl, and the folder that holds them."""

import json
import shutil

import numpy as np
import pytest

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.log import metrics_writer, show_progress


def line(epoch, **more):
    return {"epoch": epoch, "run": "a", "train_loss": 1.5 / epoch, **more}


def test_lines_after_the_checkpoint_are_replaced(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(line(1)) + '\n{"epoch": 2, "train_lo')
    with metrics_writer(tmp_path, [line(1)], ["a"]) as write:
        write([line(2)])
        assert path.read_text().endswith("\n")  # at once, not when it is closed
    assert [json.loads(text) for text in path.read_text().splitlines()] == [line(1), line(2)]


@pytest.mark.parametrize("vanish", [shutil.rmtree, lambda path: path.rename(f"{path}-moved")])
def test_a_missing_folder_gives_one_sentence(tmp_path, vanish):
    folder = tmp_path / "run"
    folder.mkdir()
    with metrics_writer(folder, [], ["a"]) as write:
        write([line(1)])
        vanish(folder)
        with pytest.raises(UserError, match=r"run/metrics.jsonl is missing.*same command"):
            write([line(2)])


def test_progress_has_the_means_of_the_runs_and_the_time_left(capsys):
    names = ("train_loss", "train_accuracy", "validation_accuracy")
    # Two runs; one epoch took long, and the median of the newest five counts.
    seconds = [1, 1, 60, 2, 2, 2, 2]
    records = [
        {"epoch": epoch, "run": run, "seconds": took} | dict.fromkeys(names, (epoch + i) / 100)
        for epoch, took in enumerate(seconds, 1)
        for i, run in enumerate("ab")
    ]
    show_progress(records, 50, 300, np.array([0.5, 0.7]), np.array([3, 4]))
    assert capsys.readouterr().out == (
        "epoch 7/50  loss 0.0750  train 7.50%  validation 7.50% (kept 60.00%)  mean of 2 runs  "
        "150 images/s  1:26 left\n"
    )
    show_progress(records[::2], 7, 300, np.array([0.5]), np.array([3]))
    assert "(kept 50.00% at 3)  150 images/s  0:00 left" in capsys.readouterr().out
