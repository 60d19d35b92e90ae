"""Which weights a training keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import Recipe
from deep_emotion_jax.training.epoch import init_state
from deep_emotion_jax.training.optimizer import make_optimizer
from deep_emotion_jax.training.validation import RunState, make_validation


@pytest.fixture(scope="module")
def validated():
    """A function (state, class, bias, epoch) that validates weights with one large last bias.

    The first 60 % of the validation images have class 0, the others class 1.
    """
    model = DeepEmotion(rngs=nnx.Rngs(0))
    optimizer, _ = make_optimizer(Recipe(8, 1e-3), 1, 1)
    start = init_state(model, optimizer)
    validate = jax.jit(make_validation(model))

    def call(state, winner, bias, epoch, count):
        images, labels = np.zeros((count, 48, 48, 1), np.uint8), np.arange(count) >= 0.6 * count
        ema = jax.tree.map(jnp.zeros_like, start.ema)
        ema["fc2"]["bias"] = jnp.zeros(7).at[winner].set(bias)
        state = state or RunState(start, start.params, start.stats, -1.0, jnp.inf, 0, 0)
        state = state._replace(train=start._replace(ema=ema))
        labels = labels.astype(np.int32)
        return validate(state, np.arange(count), count, jnp.int32(epoch), images, labels)

    return call


@pytest.mark.parametrize(("count", "best"), [(500, 3), (490, 5)])
def test_the_best_epoch_is_kept_or_the_last_with_few_images(validated, count, best):
    state = None
    # Class 0 is right for 60 %; its loss is lowest for a bias of 2 and highest for 4.
    epochs = enumerate([(1, 9), (0, 3), (0, 2), (0, 4), (1, 9)], start=1)
    for epoch, (winner, bias) in epochs:
        state, accuracy, loss = validated(state, winner, bias, epoch, count)
        assert accuracy == pytest.approx(0.6 if winner == 0 else 0.4)
    assert state.best_epoch == best
    assert state.best_params["fc2"]["bias"].max() == (2 if best == 3 else 9)
    assert state.best_accuracy == pytest.approx(0.6 if best == 3 else 0.4)
    if best == 5:
        assert state.best_loss == loss
