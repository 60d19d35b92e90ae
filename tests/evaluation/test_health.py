"""The health check reports injected faults, and none for a working network."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax import load_pretrained
from deep_emotion_jax.evaluation.health import check_health
from deep_emotion_jax.nn.model import DeepEmotion

FACES = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 1)).astype(np.uint8)
FACES = np.kron(FACES[:, ::8, ::8], np.ones((1, 8, 8, 1), np.uint8))  # coarse, as faces are


@pytest.fixture
def model():
    return DeepEmotion(rngs=nnx.Rngs(0))


def test_a_new_network_and_the_shipped_one_have_no_problem(model):
    health = check_health(model, FACES)
    assert health.problem is None
    assert set(health.dead) == {
        *(f"stages.{i}.convs.{j}" for i in range(2) for j in range(2)),
        *(f"localization.stages.{i}.convs.0" for i in range(2)),
        *("localization.hidden", "fc1"),
    }
    assert health.theta.scale == pytest.approx(1)
    assert health.theta.shift == pytest.approx(0)
    assert health.theta.outside == 0
    assert check_health(load_pretrained("deep_emotion.fer2013").model, FACES).problem is None


def test_dead_units_are_counted_in_their_layer(model):
    bias = model.stages[0].convs[1].bias
    bias[...] = jnp.where(jnp.arange(10) < 3, -1e6, bias[...])
    health = check_health(model, FACES / 255)
    assert health.dead["stages.0.convs.1"] == pytest.approx(0.3)
    assert health.dead["stages.0.convs.0"] == 0
    assert health.problem is None


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda model: model.stages[1].convs[0], "stages.1.convs.0"),
        (lambda model: model.fc1, "fc1"),
        (lambda model: model.localization.hidden, "localization.hidden"),
    ],
)
def test_a_dead_layer_is_reported(model, layer, name):
    bias = layer(model).bias
    bias[...] = jnp.full(bias.shape, -1e6)
    health = check_health(model, FACES)
    assert health.dead[name] == 1
    assert "are dead" in health.problem
    assert "recipe.learning_rate" in health.problem


@pytest.mark.parametrize(
    ("theta", "words"),
    [
        ([1, 0, 3, 0, 1, 0], "100% of the grid is off the map"),
        ([40, 0, 0, 0, 40, 0], "of the grid is off the map"),
        ([0.01, 0, 0, 0, 0.01, 0], "region has 0.01 of its side"),
    ],
)
def test_a_diverged_theta_is_reported(model, theta, words):
    model.localization.theta.bias[...] = jnp.array(theta, jnp.float32)
    assert words in check_health(model, FACES).problem


def test_nan_and_networks_without_a_sampler(model):
    model.fc2.bias[...] = jnp.full(7, jnp.nan)
    assert "not finite" in check_health(model, FACES).problem
    plain = check_health(DeepEmotion(attention="none", batch_norm=True, rngs=nnx.Rngs(0)), FACES)
    assert plain.theta is None
    assert plain.problem is None
