"""Several devices and processes train the same as one, and stop, fail and resume together."""

import json
import os
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from commands import ROOT, fails, train_arguments

from deep_emotion_jax.data.split import load_split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime import multihost

# Runs main.py and sends it a signal after an epoch.
SIGNALLED = """
import os, signal, sys
import main
from deep_emotion_jax.training import loop

name, epoch, *arguments = sys.argv[1:]
show = loop.show_progress

def signal_after(records, *rest):
    show(records, *rest)
    if records[-1]["epoch"] == int(epoch):
        os.kill(os.getpid(), getattr(signal, name))

loop.show_progress = signal_after
main.main(arguments[1:])
"""

# The same in chunks of three steps; writes the training rows that a process reads to a file.
STREAMED = """
import jax, numpy
from deep_emotion_jax.data.stored import StoredRows
from deep_emotion_jax.training import streaming

streaming.CHUNK_BYTES = 3 * 16 * 48 * 48
read, get = [], StoredRows.__getitem__

def noted(rows, index):
    if numpy.ndim(index) == 2 and numpy.size(index) > 1:  # one is read to compile
        read.append(numpy.asarray(index))
        numpy.save(f"{sys.argv[-1]}-{jax.process_index()}", read)
    return get(rows, index)

StoredRows.__getitem__ = noted
""" + SIGNALLED.replace("arguments[1:]", "arguments[1:-1]")


def start(arguments, signal=None, program=SIGNALLED, **environment):
    """Starts main.py; `signal` is the name of a signal and the epoch after which to send it."""
    code = ["-c", program, *map(str, signal)] if signal else []
    return subprocess.Popen(
        [sys.executable, *code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(arguments, signals=(None, None), program=SIGNALLED):
    """Starts two processes of one training, with one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            [arguments[0], "--distributed", *arguments[1:]],
            signal,
            program,
            JAX_NUM_CPU_DEVICES="1",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
        )
        for i, signal in enumerate(signals)
    ]


def end(process, code):
    """Waits for a process, checks its exit code and returns its output."""
    try:
        output, errors = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, (output, errors)
    return output, errors


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [[line["epoch"], line["train_loss"], line["validation_loss"]] for line in lines]


def test_eight_devices_train_the_same_as_one(prepared, tmp_path):
    # Each device gets 16 of 128 images, a CPU's micro-batch: augmentation and dropout draw the same
    # numbers.
    processes = {
        devices: start(
            [*train_arguments(prepared, tmp_path / devices), "--config.recipe.batch_size=128"],
            ("SIGTERM", 2),
            JAX_NUM_CPU_DEVICES=devices,
        )
        for devices in ("1", "8")
    }
    for devices, process in processes.items():
        output, _ = end(process, 75)
        assert f"{devices} x cpu" in output
    assert len(losses(tmp_path / "8")) == 2
    np.testing.assert_allclose(losses(tmp_path / "8"), losses(tmp_path / "1"), rtol=1e-4)


def test_two_processes_train_the_same_as_one_and_resume_each_other(prepared, finished, tmp_path):
    workdir = tmp_path / "run"
    arguments = train_arguments(prepared, workdir)
    # A stop request to the second process stops both after the same epoch.
    first, second = start_two(arguments, (None, ("SIGTERM", 1)))
    output, _ = end(first, 75)
    assert "stopped by another process; epoch 1 is saved" in output
    assert "2 x cpu" in output
    assert "epoch" not in end(second, 75)[0]  # only the first prints
    output, _ = end(start(arguments, ("SIGTERM", 2)), 75)  # one process resumes
    assert "resuming after epoch 1" in output
    assert "epoch 2 is saved" in output
    first, second = start_two(arguments)  # two processes resume
    output, _ = end(first, 0)
    end(second, 0)
    assert "resuming after epoch 2" in output
    assert len(losses(workdir)) == 3
    np.testing.assert_allclose(losses(workdir), losses(finished[0]), rtol=1e-4)
    there, here = (json.loads((run / "summary.json").read_text()) for run in (finished[0], workdir))
    assert here["fingerprint"] == there["fingerprint"]
    assert here["accuracy"] == there["accuracy"]


def test_two_processes_stream_a_part_each(prepared, finished, tmp_path):
    arguments = [*train_arguments(prepared, tmp_path / "run"), "--config.streaming=always"]
    rows = tmp_path / "rows"
    signals = (("SIGTERM", 1), ("SIGTERM", 1))
    first, second = start_two([*arguments, rows], signals, STREAMED)
    output, _ = end(first, 75)
    end(second, 75)
    assert "epoch 1 is saved" in output
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(finished[0])[:1], rtol=1e-4)
    read = [np.load(f"{rows}-{i}.npy") for i in range(2)]
    # Of 9 batches of at most 16 images, half each.
    assert [each.shape for each in read] == [(9, 1, 8)] * 2
    assert np.union1d(*read).tolist() == list(range(140))


def test_a_process_that_dies_ends_the_others(prepared, tmp_path):
    arguments = train_arguments(prepared, tmp_path / "run", epochs=100_000)
    first, second = start_two(arguments, (None, ("SIGKILL", 2)))
    end(second, -9)
    _, errors = end(first, 1)
    assert "another process of this training has ended" in errors
    assert "Traceback" not in errors


def test_missing_process_variables_are_one_message(tmp_path):
    words = ("JAX_COORDINATOR_ADDRESS=HOST:PORT", "JAX_PROCESS_ID")
    fails("main.py", "--distributed", f"--workdir={tmp_path}", words=words)


@pytest.fixture
def as_processes(monkeypatch):
    """Runs a function in threads that act as the processes of a training."""

    def run(count, function):
        own, meeting, values = threading.local(), threading.Barrier(count), [None] * count
        results = [None] * count

        def allgather(value):
            values[own.index] = value
            meeting.wait(10)
            everyone = np.stack(values)
            meeting.wait(10)
            return everyone

        def process(i):
            own.index = i
            try:
                results[i] = function(i)
            except UserError as error:
                results[i] = error

        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(jax, "process_index", lambda: own.index)
        monkeypatch.setattr(multihost, "process_allgather", allgather)
        threads = [threading.Thread(target=process, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


class Source(list):
    """A source that records which examples are read."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        super().__init__(
            {
                "image": rng.integers(0, 256, (48, 48, 1), np.uint8),
                "evidence_mask": rng.integers(0, 2, (48, 48, 1), np.uint8),
                "label": i % 7,
                "key": f"Gesicht ä{10**i}".encode(),
                "subject": b"" if i % 2 else b"S\0 1",
                "soft_label": rng.random(7, np.float32),
                "copy_of": b"" if i % 3 else b"k0",
            }
            for i in range(count)
        )
        self.read = []

    def __getitem__(self, i):
        self.read.append(i)
        return super().__getitem__(i)


@pytest.mark.parametrize(("count", "processes"), [(12, 3), (10, 3), (7, 8), (1, 2)])
def test_each_process_reads_a_part_and_gets_the_whole(as_processes, count, processes):
    alone = load_split(Source(count))
    sources = [Source(count) for _ in range(processes)]
    for split in as_processes(processes, lambda i: multihost.read_split(sources[i])):
        assert split.fingerprint() == alone.fingerprint()
        assert (split.keys, split.subjects) == (alone.keys, alone.subjects)
        np.testing.assert_array_equal(split.evidence, alone.evidence)
        np.testing.assert_array_equal(split.soft_labels, alone.soft_labels)
        assert split.copies == alone.copies
        assert split.images.shape == alone.images.shape
    assert {len(source.read) for source in sources} == {-(-count // processes)}


def test_a_user_error_in_one_process_is_raised_in_all(as_processes):
    def act(i):
        if i == 1:
            raise UserError("no disk")
        return i

    errors = as_processes(3, lambda i: multihost.in_step(lambda: act(i)))
    assert [str(error) for error in errors] == ["no disk"] * 3
    assert as_processes(3, lambda i: multihost.in_step(lambda: i, only_first=True)) == [
        *(0, None, None)
    ]


def test_processes_with_different_settings_are_refused(as_processes):
    def check(seed):
        multihost.require_same({"seed": seed}, "settings")

    errors = as_processes(3, lambda i: check(i // 2))
    assert all("process 2 and process 0 have different settings" in str(error) for error in errors)
    assert as_processes(3, lambda i: check(0)) == [None] * 3


def test_any_process_sets_a_flag_for_all(as_processes):
    assert as_processes(2, lambda i: multihost.any_process(i == 1, False)) == [(True, False)] * 2


@pytest.mark.parametrize(
    ("error", "words", "traceback"),
    [
        (UserError("no room"), "error: no room", False),
        (jax.errors.JaxRuntimeError("Gloo: reset"), "another process of this training", False),
        (KeyError("a defect"), "KeyError: 'a defect'", True),
    ],
)
def test_an_error_of_one_process_ends_it_at_once(monkeypatch, capsys, error, words, traceback):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: None)
    monkeypatch.setattr(os, "_exit", leave)  # not an orderly shutdown, which waits for the others
    monkeypatch.setattr(multihost, "SECONDS_TO_LEAVE", 0)
    with pytest.raises(SystemExit, match="1"), multihost.joined():
        raise error
    errors = capsys.readouterr().err
    assert words in errors
    assert ("Traceback" in errors) == traceback
