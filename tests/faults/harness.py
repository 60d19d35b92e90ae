"""Compares a training with repeated faults with the same training without faults.

    python -m tests.faults.harness --moments 30 --seed 0

Each start of the training has one fault; the next start must print that it resumes from the newest
whole checkpoint. At the end weights and metrics must be bitwise equal to those of the training
without faults. The same is done with streamed images, a clock that goes back and a file system
without locks. Data preparations are killed, disks filled, made read-only and taken away as well.
Prints a table: fault, times tried, survived.
"""

import argparse
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.data_faults import arrays_killed, preparation, prepare_killed
from tests.faults.disks import fill_disk, lose_folder, read_only_disk
from tests.faults.trainings import (
    NOTHING,
    SIGNALS,
    STEPS,
    assert_same,
    clock_jumps,
    metrics,
    no_locks,
    run,
    saved,
    start,
    stream_in_small_chunks,
    training,
)

STREAMED = (stream_in_small_chunks, clock_jumps, no_locks)


def whole_checkpoints(workdir):
    """The folders of all committed checkpoints by the steps done, in order."""
    found = {epoch * STEPS: workdir / "checkpoints" / str(epoch) for epoch in saved(workdir)}
    for path in (workdir / "checkpoints_within_epochs").glob("*"):
        if path.name.isdigit():  # the name is the number of steps
            found[int(path.name)] = path
    return dict(sorted(found.items()))


def _newest_files(workdir):
    *_, newest = whole_checkpoints(workdir).values()
    return sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)


def flip(workdir, rng):
    """Flips one bit of one file of the newest checkpoint."""
    path = rng.choice(_newest_files(workdir))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(workdir, rng):
    """Cuts one file of the newest checkpoint to a random length."""
    path = rng.choice(_newest_files(workdir))
    os.truncate(path, rng.randrange(path.stat().st_size))


def half_line(workdir, rng):
    """Cuts the last line of metrics.jsonl, or repeats it."""
    path = workdir / "metrics.jsonl"
    text = path.read_text()
    path.write_text(rng.choice([text[: -rng.randrange(2, 60)], text + text[-80:]]))


DAMAGES = {
    flip: "a bit of the newest checkpoint flipped",
    truncate: "a file of the newest checkpoint cut short",
    half_line: "metrics.jsonl half written or doubled",
}


def train_with_faults(data_dir, workdir, epochs, faults, rng, conditions=()):
    """Starts the training once for each fault, and once more to its end.

    Args:
      data_dir: the prepared dataset, or the folder to prepare it in.
      workdir: a new folder; the log is written beside it.
      epochs: number of epochs.
      faults: signals, sent to a start of the training, and damages, done before the next start.
      rng: chooses moments and places.
      conditions: of `trainings`, that hold in every start.

    Returns:
      The names of the faults that happened, each followed by a start that resumed correctly.

    Raises:
      AssertionError: at the first start that did not.
    """
    log = workdir.with_suffix(".log")
    arguments = _training(data_dir, workdir, epochs, conditions)
    happened, damaged = [], False
    for fault in [*faults, NOTHING]:
        there = list(whole_checkpoints(workdir))
        if fault in DAMAGES:
            # The newest of one kind is damaged only if there is another one of that kind.
            kinds = [path.parent for path in whole_checkpoints(workdir).values()]
            lines = (workdir / "metrics.jsonl").stat().st_size if kinds else 0
            if kinds and kinds.count(kinds[-1]) > 1 and (lines > 200 or fault is not half_line):
                fault(workdir, rng)
                happened.append(DAMAGES[fault])
                damaged = damaged or fault is not half_line
            continue
        process = start(arguments, log, fault, rng.uniform(*fault.seconds), conditions)
        process.join()
        output = log.read_text() if log.exists() else ""
        assert "Traceback" not in output, output
        assert not re.search(r"-\d*:?\d* left", output), output  # whatever the clock does
        resumed = _steps_resumed_from(output)
        if resumed is not None:
            skipped = "is damaged and skipped" in output
            assert damaged or not skipped, output
            assert resumed == there[-2 if skipped else -1], (output, there)
            damaged = False
            print(f"resumed from {resumed} of {there} after {happened[-1:]}", flush=True)
        elif there:
            assert process.exitcode < 0, output  # killed before it resumed
        if fault.number == signal.SIGKILL:
            assert process.exitcode in (0, -signal.SIGKILL), output
        elif fault.number:
            assert process.exitcode in (0, 75), output
        if fault.number and process.exitcode:
            happened.append(fault.name)
    assert process.exitcode == 0, output
    assert ("has no locks" in output) == (no_locks in conditions), output
    return happened


def _training(data_dir, workdir, epochs, conditions):
    streamed = ["--config.streaming=always"] if stream_in_small_chunks in conditions else []
    return training(data_dir, workdir, epochs) + streamed


def _steps_resumed_from(output):
    if found := re.search(r"resuming after epoch (\d+)", output):
        return STEPS * int(found[1])
    if found := re.search(r"resuming after step (\d+) of epoch (\d+)", output):
        return int(found[1]) + STEPS * (int(found[2]) - 1)
    return None


def _faults(moments):
    faults = []
    for i in range(moments):
        faults.append(SIGNALS[i % len(SIGNALS)])
        if i % 3 == 2:
            faults.append(list(DAMAGES)[i // 3 % len(DAMAGES)])
    return faults


def _all_faults(root, moments, rng):
    """Runs everything in a folder, and returns the names of the faults that happened."""
    data_dir = root / "data"
    preparation(data_dir).join()
    straight = {}
    for epochs in (3 * moments, moments, 5):
        straight[epochs] = root / f"straight{epochs}"
        run(training(data_dir, straight[epochs], epochs), root / "straight.log")
    # A collapsed network would have equal weights after any fault.
    assert metrics(straight[3 * moments])[-1]["train_accuracy"] > 0.3
    happened = []
    for name, epochs, conditions in (
        ("in memory", 3 * moments, ()),
        ("streamed, clock going back, no locks", moments, STREAMED),
    ):
        workdir, undisturbed = root / name.partition(",")[0], straight[epochs]
        if conditions:  # with optimizations, the programs of the two kinds may round differently
            undisturbed = root / "straight_streamed"
            arguments = _training(data_dir, undisturbed, epochs, conditions)
            run(arguments, root / "straight.log", conditions=(stream_in_small_chunks,))
        faults = train_with_faults(data_dir, workdir, epochs, _faults(moments), rng, conditions)
        happened += [f"{name}: {fault}" for fault in faults]
        assert_same(workdir, undisturbed)
    for i in range(moments // 5):
        prepare_killed(root / f"data{i}", data_dir, rng)
        happened.append("kill -9 while data is prepared; two at once redo it")
        if fill_disk(data_dir, root / f"disk{i}", straight[5], 5, rng):
            happened.append("a full disk")
        lost = lose_folder(data_dir, root / f"lost{i}", straight[moments], moments, rng)
        happened += [lost] if lost else []
    for _ in range(moments):
        arrays_killed(data_dir, rng)
        happened.append(
            "kill -9 while decoded images are written; another reads, a third redoes it"
        )
    if read_only_disk(data_dir, root / "read_only", straight[5], 5):
        happened.append("data and results on a read-only disk")
    return happened


def main():
    """Runs the harness from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
        tried = Counter(_all_faults(root, options.moments, random.Random(options.seed)))
    print("| fault | times tried | survived |\n| --- | --- | --- |")
    for name, count in tried.items():
        print(f"| {name} | {count} | {count} |")
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s; weights and metrics bit-equal")


if __name__ == "__main__":
    main()
