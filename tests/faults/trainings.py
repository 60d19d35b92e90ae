"""Starts trainings and preparations in processes of their own, and compares what they leave."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp

# Forked processes share the imports, which halves the time of a start.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["deep_emotion_jax.training.experiment", "datasets.load"])

STEPS = 9  # of an epoch: 140 images in batches of 16


class Fault(NamedTuple):
    """A signal to send to a start of the training."""

    name: str
    number: int = 0
    saves: int = 0  # checkpoints saved by this start before the signal
    seconds: tuple[float, float] = (0, 0)  # range of the random delay after that


NOTHING = Fault("nothing")
KILL_IN_START = Fault("kill -9 while it starts, restores or compiles", signal.SIGKILL, 0, (0, 6))
KILL_IN_WRITE = Fault("kill -9 while a checkpoint is written", signal.SIGKILL, 1, (0, 0.1))
KILL_IN_EPOCH = Fault("kill -9 in an epoch", signal.SIGKILL, 3, (0, 0.5))
TERMINATE = Fault("SIGTERM in an epoch", signal.SIGTERM, 2, (0, 0.5))
INTERRUPT = Fault("SIGINT in an epoch", signal.SIGINT, 1, (0, 0.5))
SIGNALS = (KILL_IN_WRITE, KILL_IN_EPOCH, TERMINATE, KILL_IN_START, INTERRUPT)


def stream_in_small_chunks():
    """Saves within epochs: chunks of two steps, of which one is read ahead."""
    from deep_emotion_jax.training import streaming

    streaming.CHUNK_BYTES, streaming.CHUNKS_READ = 2 * 16 * 48 * 48, 1


def clock_jumps():
    """Turns the wall clock back by a day, three times a second."""
    now, began = time.time, time.monotonic()
    time.time = lambda: now() - 86_400 * int(3 * (time.monotonic() - began))


def no_locks():
    """Refuses locks as some network file systems do."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refuse


def _child(arguments, log, number, saves, delay, conditions):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    import main

    for condition in conditions:
        condition()
    from deep_emotion_jax.runtime.checkpoint import Checkpoints

    save, count = Checkpoints.save, 0

    def arm():
        timer = threading.Timer(delay, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    def counted(*args):
        nonlocal count
        count += 1
        if count == saves:
            arm()
        save(*args)

    if number:
        Checkpoints.save = counted
        if not saves:
            arm()
    main.main(arguments)


def start(arguments, log, fault=NOTHING, delay=0.0, conditions=()):
    """Starts main.py with these arguments, under conditions; writes its output to the log."""
    process = FORKS.Process(
        target=_child,
        args=([str(each) for each in arguments], log, fault.number, fault.saves, delay, conditions),
    )
    process.start()
    return process


def training(data_dir, workdir, epochs):
    """Arguments of a training with epochs of about 0.1 s that saves after each."""
    return [
        *(f"--workdir={workdir}", f"--config.data_dir={data_dir}"),
        *(f"--config.num_epochs={epochs}", "--config.recipe.batch_size=16"),
        "--config.recipe.learning_rate=5e-4",  # higher rates collapse at this batch size
        "--config.seconds_between_checkpoints=0",
    ]


def weights(workdir):
    """All arrays of the newest checkpoint."""
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        state = manager.restore(manager.latest_step(), args=args).state
    return [np.asarray(leaf) for leaf in _leaves(state)]


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for branch in tree for leaf in _leaves(branch)]
    return [] if tree is None else [tree]


def metrics(workdir):
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same(workdir, straight):
    """Asserts that both trainings have equal weights and metrics."""
    ours, theirs = weights(workdir), weights(straight)
    assert len(ours) == len(theirs) > 30
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics(workdir) == metrics(straight)


def saved(workdir):
    """Epochs with a committed checkpoint, oldest first."""
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()
    )


def run(arguments, log, expected=0, conditions=()):
    """Runs main.py to its end and returns its output, which has no traceback.

    Raises:
      AssertionError: if it ends with another exit code.
    """
    process = start(arguments, log, conditions=conditions)
    process.join()
    output = log.read_text()
    assert "Traceback" not in output, output
    assert process.exitcode == expected, output
    return output


def wait(process, condition):
    """Waits until a condition holds or the process ends."""
    while process.is_alive() and not condition():
        time.sleep(0.002)
