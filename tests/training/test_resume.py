"""A training that stopped at a closed output resumes, also with another number of devices."""

import contextlib
import os
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.signals import Stopped
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.loop import fit

COUNT = 70
RNG = np.random.default_rng(0)
DATA = Split(
    RNG.integers(0, 256, (COUNT, 48, 48, 1), np.uint8),
    np.arange(COUNT, dtype=np.int32) % 7,
    [f"face_{i}" for i in range(COUNT)],
    [""] * COUNT,
)
FOLD = Fold("official", np.arange(64), np.arange(64, COUNT), np.arange(0))


def train(workdir, devices):
    # Two devices take 16 of 32 images each, one takes 16 at a time: the random draws are the same.
    experiment = Experiment(
        num_epochs=3,
        num_devices=devices,
        seconds_between_checkpoints=1000,  # none is due before the end
        recipe=Recipe(batch_size=32, learning_rate=5e-4, ema_decay=0),
        augmentation=Augmentation(flip=False),
    )
    model = DeepEmotion(dropout=0.1, rngs=nnx.Rngs(0))
    return fit([model], experiment, DATA, [Run(FOLD, 0)], workdir=workdir, about={})


def test_resuming_after_a_closed_output_with_another_number_of_devices(tmp_path, capsys):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.mkdir()
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does
    output = os.fdopen(writing, "w")
    with (
        contextlib.redirect_stdout(output),
        pytest.raises(Stopped, match="stopped by a closed output; epoch 1 is saved"),
    ):
        train(cut, devices=1)
    with contextlib.suppress(BrokenPipeError):
        output.close()
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["1"]
    shutil.copytree(cut, whole)
    expected, expected_records = train(whole, devices=1)
    state, records = train(cut, devices=2)
    assert capsys.readouterr().out.count("resuming after epoch 1") == 2
    for ours, theirs in zip(records, expected_records, strict=True):
        for name in ("train_loss", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
