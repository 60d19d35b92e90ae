"""One training, cut and damaged again and again, against the same training left in peace.

    python -m tests.faults.harness --moments 30 --seed 0

Each start of the training meets one fault, then the next start must go on: from the newest whole
checkpoint, which it must name. At the end weights and metrics must be those of the training left
in peace, bit for bit. Prints a table: fault, times tried, survived.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

# The forked children have imported everything already: a start takes half the time.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["main"])
POLL_SECONDS = 0.002


def _child(arguments, log):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    sys.argv = ["main.py", *arguments]
    import main

    main.command_line()


def start(arguments, log):
    """Starts main.py with these arguments; output goes to the log."""
    process = _FORKS.Process(target=_child, args=([str(each) for each in arguments], log))
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
    """A training of some 0.1 s an epoch, that saves after each."""
    return [
        *(f"--workdir={workdir}", f"--config.data_dir={data_dir}"),
        *(f"--config.num_epochs={epochs}", "--config.recipe.batch_size=16"),
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
    """The lines of metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same(workdir, straight):
    """Both ended with the same bits and the same lines."""
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
        time.sleep(POLL_SECONDS)


def _next_epoch(process, workdir, rng):
    """Waits until this start has written metrics, and then for a random part of an epoch."""
    path = workdir / "metrics.jsonl"
    _wait(process, lambda: path.exists() and path.stat().st_mtime_ns > process.began)
    size = path.stat().st_size if path.exists() else 0
    _wait(process, lambda: path.stat().st_size > size)
    time.sleep(rng.uniform(0, 0.3))


def kill_in_start(process, workdir, rng):
    """Kill -9 while it imports, reads data, restores or compiles."""
    time.sleep(rng.uniform(0, 8))
    process.kill()


def kill_in_epoch(process, workdir, rng):
    """Kill -9 at any moment after the first epoch of this start."""
    _next_epoch(process, workdir, rng)
    process.kill()


def kill_in_checkpoint(process, workdir, rng):
    """Kill -9 while Orbax writes: a temporary folder is there, the commit is not."""
    folder, before = workdir / "checkpoints", len(saved(workdir))
    _next_epoch(process, workdir, random.Random(0)) if before else None
    _wait(process, lambda: any(not path.name.isdigit() for path in folder.glob("*")))
    time.sleep(rng.uniform(0, 0.05))
    process.kill()


def prepare_killed(data_dir, rng):
    """Kills a preparation after its temporary folder has appeared; two at once then redo it."""
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


def terminate(process, workdir, rng):
    """SIGTERM at any moment after the first epoch of this start: saves, exit code 75."""
    _next_epoch(process, workdir, rng)
    if process.is_alive():
        process.terminate()
        process.join()
        assert process.exitcode in (0, 75), process.exitcode


def _newest_files(workdir):
    newest = workdir / "checkpoints" / str(saved(workdir)[-1])
    return sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)


def flip(workdir, rng, among=_newest_files):
    """One bit of one file of the newest checkpoint."""
    path = rng.choice(among(workdir))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return path


def truncate(workdir, rng, among=_newest_files):
    """One file of the newest checkpoint cut to a random length."""
    path = rng.choice(among(workdir))
    os.truncate(path, rng.randrange(path.stat().st_size))
    return path


def half_line(workdir, rng):
    """metrics.jsonl ends within a line, or has a line twice."""
    path = workdir / "metrics.jsonl"
    text = path.read_text()
    path.write_text(rng.choice([text[: -rng.randrange(2, 60)], text + text[-80:]]))
    return path


SIGNALS = (kill_in_epoch, kill_in_checkpoint, terminate, kill_in_start)
DAMAGES = (flip, truncate, half_line)


def torment(data_dir, workdir, epochs, faults, rng):
    """Starts the training once for each fault, and once more to its end.

    Returns:
      The name of every fault that was followed by a start that went on as it must.

    Raises:
      AssertionError: at the first that was not.
    """
    log = workdir.with_suffix(".log")
    survived, damaged = [], None
    for fault in [*faults, None]:
        there = saved(workdir)
        if fault in DAMAGES:
            if len(there) < 2:
                continue
            damaged = fault(workdir, rng)
            survived.append(fault.__name__)
            continue
        process = start(training(data_dir, workdir, epochs), log)
        process.began = time.time_ns()
        if fault:
            fault(process, workdir, rng)
        process.join()
        output = log.read_text() if log.exists() else ""
        assert "Traceback" not in output, output
        assert "error:" not in output, output
        found = re.search(r"resuming after epoch (\d+)", output)
        if found and there:
            passed_over = "is damaged" in output
            assert not passed_over or damaged, output
            assert int(found[1]) == there[-2 if passed_over else -1], (output, there)
        if found:
            damaged = None
        if fault:
            survived.append(fault.__name__)
    assert process.exitcode == 0, output
    return survived


def main():
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "cache")
        faults = []
        for i in range(options.moments):
            faults.append(SIGNALS[i % len(SIGNALS)])
            if i % 3 == 2:
                faults.append(DAMAGES[i // 3 % len(DAMAGES)])
        epochs = 3 * options.moments
        first = start(training(root / "data", root / "straight", epochs), root / "straight.log")
        first.join()
        assert first.exitcode == 0, (root / "straight.log").read_text()
        survived = torment(root / "data", root / "tormented", epochs, faults, rng)
        assert_same(root / "tormented", root / "straight")
    tried = Counter(survived)
    print("| fault | times tried | survived |\n| --- | --- | --- |")
    for name, count in tried.items():
        print(f"| {name} | {count} | {count} |")
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s; weights and metrics bit-equal")


if __name__ == "__main__":
    main()
