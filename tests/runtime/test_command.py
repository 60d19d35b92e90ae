"""How commands end when the disk fails."""

import errno
import os

import pytest

from deep_emotion_jax.runtime import command


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some disk space"),
        (errno.EROFS, "check the disk"),
        (errno.EIO, "check the disk"),
        (errno.ESTALE, "check the disk"),
    ],
)
def test_a_failing_disk_is_one_message(monkeypatch, number, advice):
    monkeypatch.setattr(command, "_set_up", lambda: None)

    def fail():
        raise OSError(number, os.strerror(number), "runs/mine/summary.json")

    with pytest.raises(SystemExit, match=rf"error: .*runs/mine/summary.json.*{advice}"):
        command.run_command(fail)


def test_an_error_of_the_code_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(command, "_set_up", lambda: None)
    for error in (OSError(errno.EBADF, "bad"), KeyError("x")):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)):
            command.run_command(fail)
