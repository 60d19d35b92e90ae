"""Ten training steps against the same steps in PyTorch (golden/make_training_trajectory.py).

Covers the network, the loss with L2 term and label smoothing, Adam with decoupled weight decay,
warm-up, cosine decay and the moving average.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import GOLDEN_FILES
from flax import nnx
from flax.traverse_util import flatten_dict
from golden import make_training_trajectory as golden

from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.batching import step_examples
from deep_emotion_jax.training.config import Augmentation, Recipe
from deep_emotion_jax.training.epoch import init_state, make_epoch
from deep_emotion_jax.training.optimizer import make_optimizer

GOLDEN = GOLDEN_FILES / "training_trajectory.npz"
KEY = jax.random.key(3)


def named(tree):
    return {".".join(map(str, path)): np.asarray(leaf) for path, leaf in flatten_dict(tree).items()}


@pytest.fixture(scope="module")
def ours():
    """State and losses after one epoch of ten steps from the golden weights and images."""
    recipe = Recipe(
        batch_size=golden.BATCH,
        learning_rate=golden.PEAK,
        warmup_steps=golden.WARMUP,
        weight_decay=golden.WEIGHT_DECAY,
        fc_l2=golden.FC_L2,
        label_smoothing=golden.SMOOTHING,
        ema_decay=golden.EMA,
    )
    model = DeepEmotion(golden.CLASSES, dropout=0.0, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    weights = golden.start()
    start = jax.tree.map_with_path(
        lambda path, _: jnp.asarray(weights[".".join(str(part.key) for part in path)]),
        nnx.to_pure_dict(state),
    )
    nnx.replace_by_pure_dict(state, start)
    nnx.update(model, state)

    # Ordered so that the epoch's shuffle gives the golden order.
    count = golden.STEPS * golden.BATCH
    order = [
        step_examples(KEY, np.arange(count), count, golden.BATCH, step)
        for step in range(golden.STEPS)
    ]
    images, labels = golden.faces()
    back = np.argsort(np.concatenate(order))
    optimizer, _ = make_optimizer(recipe, 1, golden.STEPS)
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    epoch = jax.jit(make_epoch(model, optimizer, recipe, Augmentation(flip=False), mesh))
    trained, sums = epoch(
        init_state(model, optimizer),
        KEY,
        jnp.arange(count),
        count,
        jnp.asarray(images[back]),
        jnp.asarray(labels[back], jnp.int32),
    )
    return trained, np.asarray(sums["loss"])


@pytest.fixture(scope="module")
def theirs():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def test_losses(ours, theirs):
    np.testing.assert_allclose(ours[1], theirs["losses"], atol=1e-4)
    # The golden losses change, so a step without effect would fail.
    assert np.ptp(theirs["losses"]) > 0.05


def test_weights_after_ten_steps(ours, theirs):
    weights, start = named(ours[0].params), golden.start()
    assert weights.keys() == start.keys()
    for name, leaf in weights.items():
        np.testing.assert_allclose(leaf, theirs[name], atol=1e-4, err_msg=name)
        assert np.abs(theirs[name] - start[name]).max() > 1e-3


def test_moving_average_after_ten_steps(ours, theirs):
    averages = named(ours[0].ema)
    kept = [name for name in averages if f"ema.{name}" in theirs]
    assert len(kept) == len(averages) - 1  # the largest is not stored
    for name in kept:
        np.testing.assert_allclose(averages[name], theirs[f"ema.{name}"], atol=1e-4, err_msg=name)
