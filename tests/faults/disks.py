"""Trainings on disks that are full, read-only or taken away."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

from tests.faults.trainings import assert_same, run, saved, start, training, wait


@contextmanager
def small_disk(folder, kilobytes):
    """Mounts a small file system; yields a function that frees space, or None without root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    room = ["mount", "-o", "remount,rw,size=64m", str(folder)]
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
        output = run(arguments, log, expected=1)
        assert "No space left" in output, output
        make_room()
        run(arguments, log)
        assert_same(folder / "run", straight)
    return True


def read_only_disk(data_dir, folder, straight, epochs):
    """Trains with the data, and then with the results, on a read-only disk.

    The data may be read-only, unless their decoded images must be written to be streamed.

    Returns:
      Whether such a disk could be mounted.
    """
    with small_disk(folder, 8 << 10) as make_room:
        if make_room is None:
            return False
        log, outside = folder.with_suffix(".log"), folder.with_suffix(".run")
        shutil.copytree(data_dir, folder / "data", ignore=shutil.ignore_patterns("arrays"))
        (folder / "run").mkdir()
        remount = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(remount, check=True)
        run(training(folder / "data", outside, epochs), log)
        assert_same(outside, straight)
        streamed = [*training(folder / "data", outside, epochs), "--config.streaming=always"]
        assert "cannot be written to" in run(streamed, log, expected=1)
        refused = run(training(data_dir, folder / "run", epochs), log, expected=1)
        assert "cannot write to the workdir" in refused, refused
        make_room()  # mounts it for writing, too
        run(training(data_dir, folder / "run", epochs), log)
        assert_same(folder / "run", straight)
    return True


def lose_folder(data_dir, folder, straight, epochs, rng):
    """Moves or removes the folder of a running training, and repeats the training.

    Returns:
      What was done, or None if the training ended before.
    """
    workdir, log = folder / "run", folder / "log"
    folder.mkdir()
    process = start(training(data_dir, workdir, epochs), log)
    wait(process, lambda: saved(workdir))
    time.sleep(rng.uniform(0, 0.3))
    moved = rng.random() < 0.5
    if moved:
        workdir.rename(folder / "moved")
    else:
        shutil.rmtree(workdir, ignore_errors=True)
    process.join()
    output = log.read_text()
    assert "Traceback" not in output, output
    assert process.exitcode in (0, 1), output
    if process.exitcode == 0:
        assert not workdir.exists(), "the training went on in a new folder"
        return None
    assert output.count("error: ") == 1, output
    if not moved:  # what it wrote meanwhile goes as well
        shutil.rmtree(workdir, ignore_errors=True)
    run(training(data_dir, workdir, epochs), log)
    assert_same(workdir, straight)
    return "the folder of the run is " + ("moved away" if moved else "removed")
