"""The lock of a workdir, and the checks before a run is resumed in it."""

import errno
import fcntl
import json
import os
import socket
import subprocess

import pytest

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.workdir import claim_workdir

ABOUT = {
    "config": {"seed": 0, "model": {"dropout": 0.2}},
    "runs": ["official-seed-0"],
    "fingerprint": "12ab",
    "commit": "c0ffee",
    "device": "2 x cpu",
    "versions": {"jax": "0.10.0"},
}


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    second = claim_workdir(tmp_path, ABOUT)
    with (
        claim_workdir(tmp_path, ABOUT),
        pytest.raises(UserError, match=r"another run is using .*\(process \d+ on "),
    ):
        second.__enter__()
    with claim_workdir(tmp_path, ABOUT):
        pass


def test_the_host_of_the_other_run_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "node-7")
        first = claim_workdir(tmp_path, ABOUT)
        first.__enter__()
    with pytest.raises(UserError, match=rf"\(process {os.getpid()} on node-7\)"):
        claim_workdir(tmp_path, ABOUT).__enter__()
    first.__exit__(None, None, None)
    # Without locks both run: a warning is all that can be done.
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "")))
    with claim_workdir(tmp_path, ABOUT), claim_workdir(tmp_path, ABOUT):
        assert (tmp_path / "lock").read_text().endswith(f" on {socket.gethostname()}\n")


def test_a_read_only_folder_is_one_message(small_disk):
    disk, make_room = small_disk
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for workdir in (disk, disk / "new"):
        with pytest.raises(UserError, match=r"cannot write to the workdir .*Read-only"):
            claim_workdir(workdir, ABOUT).__enter__()
    make_room()
    with claim_workdir(disk / "new", ABOUT):
        pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"config": {"seed": 0, "model": {"dropout": 0.5}}},
            "config.model.dropout: 0.2 there, 0.5",
        ),
        ({"fingerprint": "34cd"}, "fingerprint: 12ab there, 34cd here"),
        ({"runs": ["official-seed-1"]}, "runs: "),
    ],
)
def test_changes_are_named_and_accepted_only_on_request(tmp_path, capsys, change, words):
    with claim_workdir(tmp_path, ABOUT):
        pass
    with pytest.raises(UserError, match=words), claim_workdir(tmp_path, ABOUT | change):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == ABOUT
    with claim_workdir(tmp_path, ABOUT | change, accept_changes=True):
        assert words in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text()) == ABOUT | change


def test_other_versions_are_reported(tmp_path, capsys):
    with claim_workdir(tmp_path, ABOUT):
        assert not capsys.readouterr().out
    with claim_workdir(tmp_path, ABOUT | {"versions": {"jax": "0.11.0"}}):
        assert "versions.jax: 0.10.0 there, 0.11.0 here" in capsys.readouterr().out


@pytest.mark.parametrize("text", ['{"config": ', "[]", "7", "[" * 100_000])
def test_a_damaged_config_is_one_message(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="damaged"), claim_workdir(tmp_path, ABOUT):
        pass
