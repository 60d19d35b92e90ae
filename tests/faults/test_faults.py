"""A short run of the harness, and faults that need their own test."""

import json
import random
import signal
import subprocess
import sys
import time

from commands import ROOT, fails, run, train_arguments

from deep_emotion_jax.runtime import signals
from tests.faults import data_faults, harness, trainings
from tests.faults.trainings import (
    KILL_IN_EPOCH,
    KILL_IN_WRITE,
    TERMINATE,
    Fault,
    assert_same,
    saved,
    training,
)


def test_training_with_faults_ends_with_the_same_bits(prepared, tmp_path):
    epochs = 8
    trainings.run(training(prepared, tmp_path / "straight", epochs), tmp_path / "straight.log")
    faults = [
        *(KILL_IN_EPOCH, harness.flip, harness.half_line),
        *(KILL_IN_WRITE, harness.truncate, TERMINATE),
    ]
    happened = harness.train_with_faults(
        prepared, tmp_path / "cut", epochs, faults, random.Random(1)
    )
    assert {fault.name for fault in faults if isinstance(fault, Fault)} <= set(happened)
    assert_same(tmp_path / "cut", tmp_path / "straight")
    # The same with streamed images, which are saved within epochs, under harder conditions.
    faults = [KILL_IN_EPOCH, harness.truncate]
    happened = harness.train_with_faults(
        prepared, tmp_path / "streamed", epochs, faults, random.Random(1), harness.STREAMED
    )
    assert KILL_IN_EPOCH.name in happened  # there may be one checkpoint, which is not damaged
    assert_same(tmp_path / "streamed", tmp_path / "straight")


def test_sigterm_saves_and_a_concurrent_run_is_refused(prepared, tmp_path):
    workdir = tmp_path / "run"
    arguments = train_arguments(prepared, workdir, epochs=100_000)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not saved(workdir):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    fails(*arguments, words=("another run is using", f"process {process.pid}"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "Traceback" not in output, output
    last = len((workdir / "metrics.jsonl").read_text().splitlines())
    assert f"stopped by SIGTERM; epoch {last} is saved" in output
    assert saved(workdir)[-1] == last
    fails(*arguments, "--config.seed=1", words=("config.seed: 0 there, 1 here", "accept-changes"))


class Slow:
    """A result that is ready after a number of calls of `is_ready`."""

    def __init__(self, calls):
        self.calls = calls

    def is_ready(self):
        self.calls -= 1
        return self.calls < 0


def test_a_stop_request_does_not_wait_for_a_long_epoch(monkeypatch):
    monkeypatch.setattr(signals, "SECONDS_TO_STOP", 0.05)
    assert signals.ready_or_stopped(Slow(50), [])
    assert signals.ready_or_stopped(Slow(0), ["SIGTERM"])
    assert not signals.ready_or_stopped(Slow(10**9), ["SIGTERM"])


def test_a_killed_preparation_is_repeated_by_two_processes(prepared, tmp_path):
    data_faults.prepare_killed(tmp_path, prepared, random.Random(0))
    for seed in range(3):
        data_faults.arrays_killed(tmp_path, random.Random(seed))


def test_a_full_disk_is_one_message_and_training_resumes(prepared, finished, small_disk):
    disk, make_room = small_disk
    workdir, ballast = disk / "run", disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    fails(*train_arguments(prepared, workdir), words=("No space left", "free some disk space"))
    ballast.unlink()
    make_room()
    again = run(*train_arguments(prepared, workdir))
    assert again.returncode == 0, again.stderr
    assert_same(workdir, finished[0])
    about = json.loads((workdir / "summary.json").read_text())
    assert about["fingerprint"]
    assert about["versions"]["jax"]
