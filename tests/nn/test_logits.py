"""The logits of many images equal those of each image alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn import logits as module
from deep_emotion_jax.nn.logits import make_logits, predict_logits, predict_mean, split_model
from deep_emotion_jax.nn.model import DeepEmotion


@pytest.fixture(scope="module")
def model():
    return DeepEmotion(rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (37, 48, 48, 1)).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 37])
def test_every_image_counts_once(model, images, count):
    graph, state = nnx.split(model)
    expected = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(
        state, jnp.asarray(images[:count], jnp.float32) / 255
    )
    found = predict_logits(model, images[:count])
    assert found.shape == (count, 7)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        predict_logits(model, images[:count] / np.float32(255)), found, atol=1e-4
    )


def test_logits_of_other_weights_than_those_of_the_model(model, images):
    other = DeepEmotion(rngs=nnx.Rngs(1))
    params, stats = split_model(other)
    found = make_logits(model)(params, stats, jnp.asarray(images[:3]))
    np.testing.assert_allclose(found, predict_logits(other, images[:3]), atol=1e-4)


def test_mean_averages_probabilities(model, images):
    single = [jax.nn.softmax(predict_logits(model, x)) for x in (images, images[:, :, ::-1])]
    averaged = np.exp(predict_mean(model, (images, images[:, :, ::-1])))
    np.testing.assert_allclose(averaged, np.mean(single, 0), atol=1e-6)


def test_networks_of_one_structure_share_a_program(model, images):
    module._program.clear_cache()
    for seed in range(2):
        predict_logits(DeepEmotion(rngs=nnx.Rngs(seed)), images)
    assert module._program._cache_size() == 1


def test_logits_do_not_depend_on_the_micro_batch_size(model, images, monkeypatch):
    expected = predict_logits(model, images)
    monkeypatch.setattr(module, "micro_batch_size", lambda size: size)
    module._program.clear_cache()
    np.testing.assert_allclose(predict_logits(model, images), expected, atol=1e-4)
