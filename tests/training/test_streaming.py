"""Streamed epochs match epochs in memory in order, steps and losses, also when interrupted."""

import os
import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.data.stored import Part, StoredRows
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.signals import Stopped
from deep_emotion_jax.training import streaming
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.loop import fit

COUNT = 90
RNG = np.random.default_rng(0)
DATA = Split(
    RNG.integers(0, 256, (COUNT, 48, 48, 1), np.uint8),
    np.arange(COUNT, dtype=np.int32) % 7,
    [f"face_{i}" for i in range(COUNT)],
    [""] * COUNT,
    None,
    RNG.dirichlet(np.ones(7), COUNT).astype(np.float32),
)
# Two runs with different examples; 5 steps of 16, in chunks of 2, 2 and 1.
RUNS = [
    Run(Fold("a", np.arange(79), np.arange(79, 90), np.arange(0)), 0),
    Run(Fold("b", np.arange(12, 90), np.arange(10), np.arange(0)), 1),
]
EXPERIMENT = Experiment(
    num_epochs=2,
    num_devices=1,
    seconds_between_checkpoints=1000,  # none is due before the end
    recipe=Recipe(batch_size=16, learning_rate=5e-4, teacher_share=0.5),
    augmentation=Augmentation(contrast=0.1),
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 2 * 2 * 16 * 48 * 48)


@pytest.fixture
def stored(tmp_path):
    """The same data with images in two files, between other bytes."""
    parts = []
    for i, images in enumerate(np.split(DATA.images, [40])):
        records = np.zeros(len(images), [("key", "S3"), ("image", "u1", (48, 48, 1))])
        records["image"] = images
        path = tmp_path / f"{i}.bin"
        path.write_bytes(b"head" + records.tobytes())
        parts.append(Part(path, 4 + 3, records.itemsize, len(images)))
    return DATA._replace(images=StoredRows(parts, np.uint8, (48, 48, 1)))


def train(workdir, data, **changes):
    workdir.mkdir(exist_ok=True)
    models = [DeepEmotion(attention="none", dropout=0.1, rngs=nnx.Rngs(run.seed)) for run in RUNS]
    experiment = replace(EXPERIMENT, **changes)
    return fit(models, experiment, data, RUNS, workdir=workdir, about={})


def assert_same(a, b):
    for ours, theirs in zip(jax.tree.leaves(a[0]), jax.tree.leaves(b[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    without_time = [[{**line, "seconds": 0} for line in records] for _, records in (a, b)]
    assert without_time[0] == without_time[1]


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    return train(tmp_path_factory.mktemp("in_memory"), DATA)


class Watched:
    """Images that call a function at the n-th read of a training batch."""

    def __init__(self, images, reading, action):
        self.images, self.shape = images, images.shape
        self.reading, self.action, self.readings = reading, action, 0

    def __getitem__(self, index):
        if np.ndim(index) == 2:  # [runs, places]
            self.readings += 1
            if self.readings == self.reading:
                self.action()
        return self.images[index]


def test_streaming_gives_bitwise_identical_results(stored, in_memory, tmp_path):
    assert_same(train(tmp_path / "run", stored), in_memory)


def killed():
    raise MemoryError("killed")


def test_a_kill_within_an_epoch_resumes_with_identical_results(
    stored, in_memory, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(streaming, "CHUNKS_READ", 1)  # else all is read before the first save
    folder, always = tmp_path / "run", {"streaming": "always"}
    # One read to compile, 5 in the first epoch; of the second epoch, 4 steps are saved.
    images = Watched(stored.images, 11, killed)
    with pytest.raises(MemoryError):
        train(folder, stored._replace(images=images), **always, seconds_between_checkpoints=0)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"1"}
    assert_same(train(folder, stored), in_memory)
    assert "resuming after step 4 of epoch 2" in capsys.readouterr().out


def test_a_stop_saves_the_steps_done_in_the_epoch(stored, in_memory, tmp_path, capsys):
    folder = tmp_path / "run"
    images = Watched(stored.images, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match=r"stopped by SIGTERM; 2 steps of epoch 1 are saved in"):
        train(folder, stored._replace(images=images), streaming="always")
    shutil.copytree(folder, tmp_path / "copy")
    assert_same(train(folder, stored), in_memory)
    assert "resuming after step 2 of epoch 1" in capsys.readouterr().out
    assert_same(train(tmp_path / "copy", DATA), in_memory)  # in memory, the epoch restarts
