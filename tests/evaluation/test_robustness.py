"""Affine changes of faces, and accuracies on changed faces."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage

from deep_emotion_jax.evaluation.robustness import (
    AMOUNTS,
    CHANGES,
    accuracy_under_change,
    change_theta,
)
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample


def test_amount_zero_is_the_identity():
    for change in CHANGES:
        theta = change_theta(jax.random.key(0), 5, change, 0.0)
        np.testing.assert_allclose(theta, np.tile(np.eye(2, 3), (5, 1, 1)), atol=1e-7)


def test_amounts_are_shares():
    shift, turn, scale = (
        np.asarray(change_theta(jax.random.key(1), 64, change, 0.25)) for change in CHANGES
    )
    # A quarter of the side is 0.5 in coordinates that span [-1, 1].
    np.testing.assert_allclose(np.hypot(*shift[:, :, 2].T), 0.5, rtol=1e-5)
    angles = np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))
    assert set(np.round(angles)) == {-45, 45}
    sizes = 1 / scale[:, 0, 0]
    assert set(np.round(sizes, 5)) == {0.75, 1.25}


def test_scaling_up_enlarges_the_face():
    image = np.zeros((1, 48, 48, 1), np.float32)
    image[:, 12:36, 12:36] = 1
    theta = change_theta(jax.random.key(0), 64, "scale", 0.25)
    larger = theta[np.asarray(theta[:, 0, 0]) < 1][:1]
    out = np.asarray(grid_sample(image, affine_grid(larger, (48, 48))))[0, ..., 0]
    expected = ndimage.zoom(image[0, ..., 0], 1.25, order=0).sum()
    assert out.sum() == pytest.approx(expected, rel=0.05)


def test_accuracy_without_a_change_is_that_of_the_network():
    model = DeepEmotion(rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 1)).astype(np.uint8)
    model.fc2.bias[...] -= model(images / np.float32(255)).mean(0)  # no class always wins
    labels = np.asarray(model(images / np.float32(255))).argmax(-1)
    labels[:5] = (labels[:5] + 1) % 7
    accuracy = accuracy_under_change(model, images, labels)
    assert set(accuracy) == set(CHANGES)
    for shares in accuracy.values():
        assert len(shares) == len(AMOUNTS)
        assert shares[0] == 0.75
        assert len(set(shares)) > 1  # the changes have an effect


def test_unknown_change():
    with pytest.raises(ValueError, match="'shear'"):
        change_theta(jax.random.key(0), 1, "shear", 0.1)
