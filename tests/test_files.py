"""Atomic writes and file locks."""

import errno
import fcntl
import json
import os

import numpy as np
import pytest

from deep_emotion_jax.files import lock, write_json


def test_write_json_converts_numpy_and_non_finite_numbers(tmp_path):
    write_json(
        tmp_path / "a.json",
        {
            "matrix": np.eye(2, dtype=int),
            "loss": np.float32(np.nan),
            "nested": [(1.5, float("inf")), {"x": float("nan")}],
            "name": "é",
            "none": None,
            "yes": True,
        },
    )
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    decoded = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert decoded == {
        "matrix": [[1, 0], [0, 1]],
        "loss": None,
        "nested": [[1.5, None], {"x": None}],
        "name": "é",
        "none": None,
        "yes": True,
    }


def test_write_json_keeps_the_old_file_if_the_object_is_not_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"epoch": 1})
    with pytest.raises(TypeError):
        write_json(path, {"epoch": 2, "bad": object()})
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_json_keeps_the_old_file_if_the_disk_fails(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    write_json(path, {"epoch": 1})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"epoch": 2})
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_lock_is_held_until_the_file_is_closed(tmp_path):
    with open(tmp_path / "lock", "w") as first, open(tmp_path / "lock", "w") as second:
        assert lock(first)
        assert not lock(second)
        first.close()
        assert lock(second)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with open(tmp_path / "lock", "w") as file:
        assert lock(file)
        assert lock(file, wait=True)
    assert f"{tmp_path / 'lock'} has no locks ({os.strerror(number)})" in caplog.text


def test_other_errors_of_a_lock_are_raised(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    with open(tmp_path / "lock", "w") as file, pytest.raises(OSError, match="broken"):
        lock(file)
