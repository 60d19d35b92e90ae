"""Soft labels of teachers, and the loss against them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import Trained
from deep_emotion_jax.training import distill
from deep_emotion_jax.training.config import Augmentation, Recipe
from deep_emotion_jax.training.distill import with_teachers
from deep_emotion_jax.training.epoch import init_state, make_epoch
from deep_emotion_jax.training.optimizer import make_optimizer

CLASSES = tuple("abcdefg")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 48, 48, 1)).astype(np.uint8)
    return Split(images, np.arange(12, dtype=np.int32) % 7, list("abcdefghijkl"), [""] * 12)


def test_training_images_get_the_mean_over_face_and_mirror(data):
    model = DeepEmotion(dropout=0.9, rngs=nnx.Rngs(0))
    index = np.array([1, 5, 8])
    taught = with_teachers(data, [Trained(model, CLASSES, {})], index, CLASSES)
    faces = data.images[index] / np.float32(255)
    both = [jax.nn.softmax(model(jnp.asarray(x))) for x in (faces, faces[:, :, ::-1])]
    np.testing.assert_allclose(taught.soft_labels[index], (both[0] + both[1]) / 2, atol=1e-5)
    assert not np.delete(taught.soft_labels, index, 0).any()
    np.testing.assert_array_equal(taught.select(index).soft_labels, taught.soft_labels[index])


def test_soft_labels_of_several_teachers_are_averaged(data):
    teachers = [Trained(DeepEmotion(rngs=nnx.Rngs(seed)), CLASSES, {}) for seed in (0, 1)]
    index = np.arange(12)
    apart = [with_teachers(data, [teacher], index, CLASSES).soft_labels for teacher in teachers]
    assert np.abs(apart[0] - apart[1]).max() > 1e-3
    both = with_teachers(data, teachers, index, CLASSES).soft_labels
    np.testing.assert_allclose(both, (apart[0] + apart[1]) / 2, atol=1e-6)


def test_soft_labels_in_blocks(data, monkeypatch):
    teacher = Trained(DeepEmotion(rngs=nnx.Rngs(0)), CLASSES, {})
    index = np.array([11, 2, 3, 7, 5])
    whole = with_teachers(data, [teacher], index, CLASSES).soft_labels
    monkeypatch.setattr(distill, "TAUGHT_AT_ONCE", 2)
    parts = with_teachers(data, [teacher], index, CLASSES).soft_labels
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_a_teacher_with_other_classes_is_refused(data):
    teacher = Trained(DeepEmotion(rngs=nnx.Rngs(0)), CLASSES[::-1], {})
    with pytest.raises(UserError, match="same classes"):
        with_teachers(data, [teacher], np.arange(3), CLASSES)


def test_teacher_share_weights_soft_and_true_labels_in_the_loss(data):
    model = DeepEmotion(dropout=0.0, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    soft = rng.dirichlet(np.ones(7), 12).astype(np.float32)
    recipe = Recipe(12, 1e-3, teacher_share=0.7)
    optimizer, _ = make_optimizer(recipe, 1, 1)
    mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    epoch = jax.jit(make_epoch(model, optimizer, recipe, Augmentation(flip=False), mesh))
    start = init_state(model, optimizer)
    inputs = (start, jax.random.key(0), np.arange(12), 12, data.images, data.labels)
    _, sums = epoch(*inputs, soft)
    logits = np.asarray(model(jnp.asarray(data.images / np.float32(255))), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    hard = -log_p[np.arange(12), data.labels].mean()
    taught = -(soft * log_p).sum(1).mean()
    np.testing.assert_allclose(sums["loss"][0], 0.3 * hard + 0.7 * taught, rtol=1e-5)
    _, untaught = epoch(*inputs)
    np.testing.assert_allclose(untaught["loss"][0], hard, rtol=1e-5)
