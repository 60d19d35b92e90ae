"""A training with a non-finite loss stops and names the step, its images, and a good checkpoint."""

import json

import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.loop import fit

COUNT = 20
DATA = Split(
    np.random.default_rng(0).integers(0, 256, (COUNT, 48, 48, 1), np.uint8),
    np.arange(COUNT, dtype=np.int32) % 7,
    [f"face_{i}" for i in range(COUNT)],
    [""] * COUNT,
)
FOLD = Fold("official", np.arange(2, 18), np.arange(18, 20), np.arange(2))


@pytest.mark.parametrize(
    ("batch_size", "step"),
    # The learning rate makes the first step diverge. The loss of the second step shows it, or in an
    # epoch of one step the validation loss; else NaN weights would be saved as a good checkpoint.
    [(8, 2), (16, 1)],
)
def test_nan_stops_training(tmp_path, batch_size, step):
    experiment = Experiment(
        num_epochs=3,
        seconds_between_checkpoints=0,
        recipe=Recipe(batch_size, learning_rate=1e30, schedule="constant", ema_decay=0),
        augmentation=Augmentation(flip=False),
    )
    model = DeepEmotion(dropout=0.0, rngs=nnx.Rngs(0))
    runs = [Run(FOLD, 0)]
    with pytest.raises(UserError) as error:
        fit([model], experiment, DATA, runs, workdir=tmp_path, about={})
    for words in (
        f"official-seed-0 is not finite at or after step {step} of epoch 1",
        f"whose {batch_size} images (face_",
        "last good checkpoint is epoch 0",
    ):
        assert words in str(error.value)
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert (report["run"], report["epoch"], report["step"]) == ("official-seed-0", 1, step)
    assert len(report["batch"]) == batch_size
    assert set(report["batch"]) <= {f"face_{i}" for i in FOLD.train}
    assert not any(path.name.isdigit() for path in (tmp_path / "checkpoints").iterdir())
