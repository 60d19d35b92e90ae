"""Compares a training with repeated faults with the same training without faults.

    python -m tests.faults.harness --moments 30 --seed 0

Each start of the training has one fault; the next start must print that it resumes from the newest
whole checkpoint. At the end weights and metrics must be bitwise equal to those of the training
without faults. Data preparations are killed and disks filled as well. Prints a table: fault, times
tried, survived.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from datasets.synthetic_faces.synthetic_faces_dataset_builder import Builder
from deep_emotion_jax.data.split import load_split

# Forked processes share the imports, which halves the time of a start.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["deep_emotion_jax.training.experiment", "datasets.load"])


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


def _child(arguments, log, number, saves, delay):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    import main
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


def start(arguments, log, fault=NOTHING, delay=0.0):
    """Starts main.py with these arguments and writes its output to the log."""
    process = _FORKS.Process(
        target=_child,
        args=([str(each) for each in arguments], log, fault.number, fault.saves, delay),
    )
    process.start()
    return process


def _prepare(data_dir):
    from datasets.common import prepare
    from datasets.synthetic_faces import synthetic_faces_dataset_builder as module

    module.Builder.SUBJECTS = {"train": 4, "validation": 1, "test": 1}
    builder = module.Builder(data_dir=data_dir)
    prepare(builder)
    assert builder.info.splits["train"].num_examples == 140


def preparation(data_dir):
    """Starts preparing a small synthetic dataset."""
    process = _FORKS.Process(target=_prepare, args=(data_dir,))
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


def _wait(process, condition):
    while process.is_alive() and not condition():
        time.sleep(0.002)


def prepare_killed(data_dir, whole, rng):
    """Kills a preparation once its temporary folder exists; two processes then repeat it.

    The result must have the same examples as the dataset in `whole`.
    """
    process = preparation(data_dir)
    _wait(process, lambda: list(data_dir.rglob("incomplete.*")))
    time.sleep(rng.uniform(0, 0.3))
    process.kill()
    process.join()
    both = [preparation(data_dir) for _ in range(2)]
    for each in both:
        each.join()
    assert [each.exitcode for each in both] == [0, 0]
    assert not list(data_dir.rglob("incomplete.*"))
    assert _fingerprints(data_dir) == _fingerprints(whole)


def _fingerprints(data_dir):
    """Fingerprints of the examples: files of the same examples differ in some bytes."""
    builder = Builder(data_dir=data_dir)
    splits = {name: load_split(builder.as_data_source(split=name)) for name in builder.info.splits}
    return {name: split.fingerprint() for name, split in splits.items()}


@contextmanager
def small_disk(folder, kilobytes):
    """Mounts a small file system; yields a function that frees space, or None without root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    room = ["mount", "-o", "remount,size=64m", str(folder)]
    try:
        yield lambda: subprocess.run(room, check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(data_dir, folder, straight, epochs, rng):
    """Trains on a disk that fills up in the first checkpoints, frees space and resumes.

    Returns:
      Whether such a disk could be mounted.
    """
    with small_disk(folder, rng.randrange(100, 2800)) as make_room:
        if make_room is None:
            return False
        log = folder.with_suffix(".log")
        arguments = training(data_dir, folder / "run", epochs)
        full = start(arguments, log)
        full.join()
        output = log.read_text()
        assert full.exitcode == 1, output
        assert "No space left" in output, output
        assert "Traceback" not in output, output
        make_room()
        again = start(arguments, log)
        again.join()
        assert again.exitcode == 0, log.read_text()
        assert_same(folder / "run", straight)
    return True


def _newest_files(workdir):
    newest = workdir / "checkpoints" / str(saved(workdir)[-1])
    return sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)


def flip(workdir, rng, among=_newest_files):
    """Flips one bit of one file of the newest checkpoint."""
    path = rng.choice(among(workdir))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return path


def truncate(workdir, rng, among=_newest_files):
    """Cuts one file of the newest checkpoint to a random length."""
    path = rng.choice(among(workdir))
    os.truncate(path, rng.randrange(path.stat().st_size))
    return path


def half_line(workdir, rng):
    """Cuts the last line of metrics.jsonl, or repeats it."""
    path = workdir / "metrics.jsonl"
    text = path.read_text()
    path.write_text(rng.choice([text[: -rng.randrange(2, 60)], text + text[-80:]]))
    return path


DAMAGES = {
    flip: "a bit of the newest checkpoint flipped",
    truncate: "a file of the newest checkpoint cut short",
    half_line: "metrics.jsonl half written or doubled",
}


def train_with_faults(data_dir, workdir, epochs, faults, rng):
    """Starts the training once for each fault, and once more to its end.

    Args:
      data_dir: the prepared dataset, or the folder to prepare it in.
      workdir: a new folder; the log is written beside it.
      epochs: number of epochs.
      faults: signals, sent to a start of the training, and damages, done before the next start.
      rng: chooses moments and places.

    Returns:
      The names of the faults that happened, each followed by a start that resumed correctly.

    Raises:
      AssertionError: at the first start that did not.
    """
    log = workdir.with_suffix(".log")
    happened, damaged = [], False
    for fault in [*faults, NOTHING]:
        there = saved(workdir)
        if fault in DAMAGES:
            if len(there) == 2:
                fault(workdir, rng)
                happened.append(DAMAGES[fault])
                damaged = damaged or fault is not half_line
            continue
        process = start(
            training(data_dir, workdir, epochs), log, fault, rng.uniform(*fault.seconds)
        )
        process.join()
        output = log.read_text() if log.exists() else ""
        assert "Traceback" not in output, output
        found = re.search(r"resuming after epoch (\d+)", output)
        if found:
            skipped = "is damaged and skipped" in output
            assert damaged or not skipped, output
            assert int(found[1]) == there[-2 if skipped else -1], (output, there)
            damaged = False
            print(f"resumed from {found[1]} of {there} after {happened[-1:]}", flush=True)
        elif there:
            assert process.exitcode < 0, output  # killed before it resumed
        if fault.number == signal.SIGKILL:
            assert process.exitcode in (0, -signal.SIGKILL), output
        elif fault.number:
            assert process.exitcode in (0, 75), output
        if fault.number and process.exitcode:
            happened.append(fault.name)
    assert process.exitcode == 0, output
    return happened


def main():
    """Runs the harness from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
        faults = []
        for i in range(options.moments):
            faults.append(SIGNALS[i % len(SIGNALS)])
            if i % 3 == 2:
                faults.append(list(DAMAGES)[i // 3 % len(DAMAGES)])
        epochs = 3 * options.moments
        data_dir, straight, short = root / "data", root / "straight", root / "short"
        preparation(data_dir).join()
        for workdir, number in ((straight, epochs), (short, 5)):
            log = workdir.with_suffix(".log")
            first = start(training(data_dir, workdir, number), log)
            first.join()
            assert first.exitcode == 0, log.read_text()
        # A collapsed network would have equal weights after any fault.
        assert metrics(straight)[-1]["train_accuracy"] > 0.3
        happened = train_with_faults(data_dir, root / "faults", epochs, faults, rng)
        assert_same(root / "faults", straight)
        for i in range(options.moments // 5):
            prepare_killed(root / f"data{i}", data_dir, rng)
            happened.append("kill -9 while data is prepared; two at once redo it")
            if fill_disk(data_dir, root / f"disk{i}", short, 5, rng):
                happened.append("a full disk")
    tried = Counter(happened)
    print("| fault | times tried | survived |\n| --- | --- | --- |")
    for name, count in tried.items():
        print(f"| {name} | {count} | {count} |")
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s; weights and metrics bit-equal")


if __name__ == "__main__":
    main()
