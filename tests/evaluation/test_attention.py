"""Accuracies with other thetas, on a network whose prediction depends only on theta."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.evaluation.attention import theta_accuracies
from deep_emotion_jax.nn.model import DeepEmotion

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 1)).astype(np.uint8)


def test_a_constant_theta_gives_equal_accuracy_with_own_and_mean_theta():
    model = DeepEmotion(rngs=nnx.Rngs(0))
    model.localization.theta.bias[...] = jnp.array([0.6, 0, 0.2, 0, 0.6, 0.1])  # weights are zero
    labels = np.asarray(model(jnp.asarray(IMAGES, jnp.float32) / 255).argmax(-1))
    found = theta_accuracies(model, IMAGES, labels)
    assert found["own"] == found["mean"] == found["others"] == 1
    model.localization.theta.bias[...] = jnp.array([1.0, 0, 0, 0, 1.0, 0])
    without = np.asarray(model(jnp.asarray(IMAGES, jnp.float32) / 255).argmax(-1))
    assert found["identity"] == pytest.approx(np.mean(without == labels))


def test_accuracy_drops_with_other_thetas_if_the_network_needs_its_own():
    rng = np.random.default_rng(1)
    model = DeepEmotion(rngs=nnx.Rngs(0))
    model.localization.theta.kernel[...] = jnp.asarray(rng.normal(size=(32, 6)), jnp.float32)
    labels = np.asarray(model(jnp.asarray(IMAGES, jnp.float32) / 255).argmax(-1))
    found = theta_accuracies(model, IMAGES, labels)
    assert found["own"] == 1
    assert min(found["mean"], found["others"], found["identity"]) < 1


def test_a_network_without_a_sampler_raises_an_error():
    model = DeepEmotion(attention="none", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="attention='none'"):
        theta_accuracies(model, IMAGES, np.zeros(12, int))
