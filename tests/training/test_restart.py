"""Dead runs are restarted from another seed; other runs are not affected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.signals import Stopped
from deep_emotion_jax.training import loop, selection
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.loop import fit
from deep_emotion_jax.training.selection import MOST_RESTARTS, restart_seed

COUNT = 40
LABELS = np.arange(COUNT, dtype=np.int32) % 2
# Two classes that any working network separates in a few steps.
IMAGES = np.where(
    LABELS[:, None, None, None] == 0,
    np.arange(48, dtype=np.uint8)[None, :, None, None] * 5,
    np.arange(48, dtype=np.uint8)[None, None, :, None] * 5,
) * np.ones((1, 48, 48, 1), np.uint8)
DATA = Split(IMAGES, LABELS, [f"face_{i}" for i in range(COUNT)], [""] * COUNT)
FOLDS = [
    Fold("a", np.arange(32), np.arange(32, COUNT), np.arange(0)),
    Fold("b", np.arange(8, COUNT), np.arange(8), np.arange(0)),
]
EXPERIMENT = Experiment(
    num_epochs=8,
    seconds_between_checkpoints=0,
    num_devices=1,
    recipe=Recipe(batch_size=16, learning_rate=2e-3, warmup_steps=0, ema_decay=0.5),
    augmentation=Augmentation(flip=False),
)


@pytest.fixture(autouse=True)
def short_starts(monkeypatch):
    # Two steps per epoch: runs are judged after epoch 5, over the last two epochs.
    monkeypatch.setattr(selection, "START_STEPS", 10)
    monkeypatch.setattr("deep_emotion_jax.training.runs.WINDOW_STEPS", 4)


def model(seed, dead=()):
    made = DeepEmotion(2, dropout=0.0, rngs=nnx.Rngs(seed))
    if seed in dead:
        made.fc1.bias[...] = jnp.full(50, -1e6)
    return made


def train(workdir, folds, seeds, dead=(), new_model=model):
    workdir.mkdir(exist_ok=True)
    runs = [Run(fold, seed) for fold, seed in zip(folds, seeds, strict=True)]
    models = [model(seed, dead) for seed in seeds]
    return fit(models, EXPERIMENT, DATA, runs, workdir=workdir, about={}, new_model=new_model)


def run_of(tree, i):
    return [np.asarray(leaf)[i] for leaf in jax.tree.leaves(tree)]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Runs without a restart: fold a from seed 3, fold b from the seed that follows seed 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "START_STEPS", 10)
        patch.setattr("deep_emotion_jax.training.runs.WINDOW_STEPS", 4)
        return train(tmp_path_factory.mktemp("healthy"), FOLDS, [3, restart_seed(4, 1)])


def test_a_dead_run_is_replaced_by_the_run_of_its_next_seed(tmp_path, healthy, capsys):
    state, records = train(tmp_path / "run", FOLDS, [3, 4], dead=[4])
    assert state.restarts.tolist() == [0, 1]
    assert f"b-seed-4 has learned nothing: restarting it from seed {restart_seed(4, 1)}" in (
        capsys.readouterr().out
    )
    expected, expected_records = healthy
    assert expected.restarts.tolist() == [0, 0]
    # Bitwise identical, including optimizer state and chosen weights.
    for i in (0, 1):
        same(run_of(state._replace(restarts=expected.restarts), i), run_of(expected, i))
    # The metrics keep the failed start, followed by the epochs after the restart.
    assert records[:10:2] == [
        line | {"seconds": ours["seconds"]}
        for line, ours in zip(expected_records[:10:2], records[:10:2], strict=True)
    ]
    assert records[9]["train_accuracy"] < 0.6 < expected_records[9]["train_accuracy"]
    assert records[-1]["train_loss"] == expected_records[-1]["train_loss"]


def test_a_stop_during_a_restart_resumes_with_identical_results(tmp_path, healthy, monkeypatch):
    stop, begun = [], []

    class Requests:
        """Requests a stop once a second model is made, which is within the restart."""

        def __enter__(self):
            return stop

        def __exit__(self, *_):
            pass

    def new_model(seed):
        begun.append(seed)
        stop.append("SIGTERM")
        return model(seed)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requests", Requests)
        with pytest.raises(Stopped, match="while restarting runs; epoch 4 is saved"):
            train(tmp_path / "run", FOLDS, [3, 4], dead=[4], new_model=new_model)
    assert begun == [3, restart_seed(4, 1)]
    state, _ = train(tmp_path / "run", FOLDS, [3, 4], dead=[4])
    for i in (0, 1):
        same(run_of(state._replace(restarts=healthy[0].restarts), i), run_of(healthy[0], i))


def test_resuming_after_a_restart_keeps_the_new_seed(tmp_path, healthy, monkeypatch):
    show = loop.show_progress

    def stop_after_epoch_6(records, *rest):
        show(records, *rest)
        if records[-1]["epoch"] == 6:
            raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "show_progress", stop_after_epoch_6)
        with pytest.raises(Stopped, match="epoch 6 is saved"):
            train(tmp_path / "run", FOLDS, [3, 4], dead=[4])
    state, _ = train(tmp_path / "run", FOLDS, [3, 4], dead=[4])
    assert state.restarts.tolist() == [0, 1]
    for i in (0, 1):
        same(run_of(state._replace(restarts=healthy[0].restarts), i), run_of(healthy[0], i))


def test_restarts_end_after_the_last_attempt(tmp_path, capsys):
    always = [restart_seed(4, n) for n in range(MOST_RESTARTS + 1)]
    state, _ = train(
        *(tmp_path / "given_up", FOLDS[1:], [4], always),
        new_model=lambda seed: model(seed, always),
    )
    assert state.restarts.tolist() == [MOST_RESTARTS]
    assert capsys.readouterr().out.count("restarting it") == MOST_RESTARTS
