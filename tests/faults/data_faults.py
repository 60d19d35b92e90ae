"""Datasets whose preparation is killed, alone and while other processes need them."""

import os
import shutil
import time

from datasets.synthetic_faces.synthetic_faces_dataset_builder import Builder
from deep_emotion_jax.data.split import load_split
from tests.faults.trainings import FORKS, wait


def _prepare(data_dir):
    from datasets.common import prepare
    from datasets.synthetic_faces import synthetic_faces_dataset_builder as module

    module.Builder.SUBJECTS = {"train": 4, "validation": 1, "test": 1}
    builder = module.Builder(data_dir=data_dir)
    prepare(builder)
    assert builder.info.splits["train"].num_examples == 140


def preparation(data_dir):
    """Starts preparing a small synthetic dataset."""
    process = FORKS.Process(target=_prepare, args=(data_dir,))
    process.start()
    return process


def prepare_killed(data_dir, whole, rng):
    """Kills a preparation once its temporary folder exists; two processes then repeat it.

    The result must have the same examples as the dataset in `whole`.
    """
    process = preparation(data_dir)
    wait(process, lambda: list(data_dir.rglob("incomplete.*")))
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


def _load(data_dir, way, expected):
    from datasets import arrays, stored

    sync = os.fsync
    os.fsync = lambda file: (time.sleep(0.05), sync(file))  # time to be killed in
    found = {"arrays": arrays, "stored": stored}[way].load(Builder(data_dir=data_dir), "train")
    assert found.fingerprint() == expected


def arrays_killed(data_dir, rng):
    """Kills a process that writes the decoded images while another one needs them.

    The other one, and one after it, must read the right images.
    """
    builder = Builder(data_dir=data_dir)
    folder = builder.data_path / "arrays"
    expected = load_split(builder.as_data_source(split="train")).fingerprint()
    shutil.rmtree(folder, ignore_errors=True)

    def load():
        way = rng.choice(["arrays", "stored"])
        process = FORKS.Process(target=_load, args=(data_dir, way, expected))
        process.start()
        return process

    writer = load()
    wait(writer, folder.exists)
    reader = load()
    time.sleep(rng.uniform(0, 0.1))
    writer.kill()
    for process in (reader, load()):
        process.join()
        assert process.exitcode == 0
    assert len(list(folder.glob("train-*.npy"))) == 1
    assert not list(folder.glob(".*"))
