"""Which weights a training keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import Recipe
from deep_emotion_jax.training.epoch import init_state, make_optimizer
from deep_emotion_jax.training.loop import RunState, _make_validation


@pytest.fixture(scope="module")
def validated():
    """A function of bias and epoch: the state after validating weights with that last bias."""
    model = DeepEmotion(rngs=nnx.Rngs(0))
    optimizer, _ = make_optimizer(Recipe(8, 1e-3), 1, 1)
    start = init_state(model, optimizer)
    validate = jax.jit(_make_validation(model))
    images, labels = np.zeros((10, 48, 48, 1), np.uint8), np.array([0] * 6 + [1] * 4)

    def call(state, winner, epoch):
        ema = jax.tree.map(jnp.zeros_like, start.ema)
        ema["fc2"]["bias"] = jnp.zeros(7).at[winner].set(epoch)
        state = state or RunState(start, start.params, start.stats, -1.0, 0)
        state = state._replace(train=start._replace(ema=ema))
        return validate(state, np.arange(10), 10, jnp.int32(epoch), images, labels)

    return call


def test_the_latest_of_the_best_weights_are_kept(validated):
    state = None
    for epoch, winner in enumerate([1, 0, 0, 1], start=1):
        state, accuracy, _ = validated(state, winner, epoch)
        assert accuracy == pytest.approx(0.6 if winner == 0 else 0.4)
    assert state.best_epoch == 3
    assert state.best_accuracy == pytest.approx(0.6)
    assert state.best_params["fc2"]["bias"][0] == 3
