"""Augmentation: range, shape, closed forms, and independent draws per image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax.training.augment import augment, mix, random_theta
from deep_emotion_jax.training.config import Augmentation

NOTHING = Augmentation(flip=False)
EVERYTHING = Augmentation(
    flip=True, shift=0.1, rotate=15, scale=0.1, contrast=0.3, degrade=0.5, erase=0.5
)


def images(count=16):
    return jax.random.uniform(jax.random.key(3), (count, 48, 48, 1))


def test_zero_settings_do_not_change_images():
    np.testing.assert_array_equal(augment(jax.random.key(0), images(), NOTHING), images())


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    x = images(200)
    out = augment(jax.random.key(0), x, Augmentation(flip=True))
    mirrored = np.array([np.array_equal(o, i[:, ::-1]) for o, i in zip(out, x, strict=True)])
    same = np.array([np.array_equal(o, i) for o, i in zip(out, x, strict=True)])
    assert (mirrored ^ same).all()
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        *[
            dataclasses.replace(NOTHING, **{name: value})
            for name, value in dataclasses.asdict(EVERYTHING).items()
            if value
        ],
    ],
)
def test_range_and_shape_are_kept_and_keys_matter(settings):
    out = augment(jax.random.key(0), images(), settings)
    assert out.shape == images().shape
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    np.testing.assert_array_equal(out, augment(jax.random.key(0), images(), settings))
    assert not np.array_equal(out, augment(jax.random.key(1), images(), settings))


def test_contrast_stretches_about_the_mean_of_each_image():
    x = np.asarray(0.4 + 0.2 * images(64))  # far from 0 and 1
    out = np.asarray(augment(jax.random.key(0), x, dataclasses.replace(NOTHING, contrast=0.3)))
    mean = x.mean((1, 2, 3), keepdims=True)
    factor = (out - mean).std((1, 2, 3)) / (x - mean).std((1, 2, 3))
    np.testing.assert_allclose(out, mean + factor[:, None, None, None] * (x - mean), atol=1e-5)
    assert 0.7 <= factor.min() < 0.75
    assert 1.25 < factor.max() <= 1.3


def test_a_square_of_noise_covers_half_of_the_images():
    x = jnp.full((400, 48, 48, 1), 2.0)  # no noise is that bright
    out = np.asarray(augment(jax.random.key(0), x, dataclasses.replace(NOTHING, erase=0.5)))
    covered = (out < 2)[..., 0]
    assert 150 < covered.any((1, 2)).sum() < 220
    rows, columns = covered.any(2), covered.any(1)
    np.testing.assert_array_equal(covered, rows[:, :, None] & columns[:, None])
    sides = np.stack([rows.sum(1), columns.sum(1)])
    inside = ~covered[:, [0, -1]].any((1, 2)) & ~covered[:, :, [0, -1]].any((1, 2)) & (sides[0] > 0)
    assert abs(sides[0] - sides[1])[inside].max() <= 1  # a square, where no edge cuts it
    assert 22 < sides.max() <= 25
    noise = out[out < 2]
    assert noise.min() >= 0
    assert noise.mean() == pytest.approx(0.5, abs=0.01)
    assert noise.std() == pytest.approx(12**-0.5, abs=0.01)


def test_every_image_gets_its_own_draw():
    same = jnp.broadcast_to(images(1), (8, 48, 48, 1))
    out = np.asarray(augment(jax.random.key(0), same, EVERYTHING))
    assert len({o.tobytes() for o in out}) == 8


def test_theta_is_a_similarity_within_the_limits():
    settings = Augmentation(flip=True, shift=0.125, rotate=20, scale=0.2)
    theta = np.asarray(random_theta(jax.random.key(0), (2000, 48, 48), settings))
    turn = theta[:, :, :2]
    size = np.sqrt(np.abs(np.linalg.det(turn)))
    gram = turn @ turn.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, size[:, None, None] ** 2 * np.eye(2)[None], atol=1e-5)
    assert 0.8 <= size.min() < 0.82
    assert 1.18 < size.max() <= 1.2001
    np.testing.assert_allclose(np.unique(np.abs(theta[:, :, 2])), 2 * np.arange(7) / 48, atol=1e-7)
    degrees = np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 1, 1]))
    assert 19 < np.abs(degrees).max() <= 20.001
    assert 0.45 < (np.linalg.det(turn) < 0).mean() < 0.55


def test_shifts_are_whole_pixels_in_units_of_each_axis():
    settings = dataclasses.replace(NOTHING, shift=0.125)
    key = jax.random.key(5)
    x = np.asarray(jax.random.uniform(key, (64, 48, 32, 1)))
    out = augment(key, jnp.asarray(x), settings)
    theta = random_theta(jax.random.split(key, 3)[0], x.shape[:3], settings)
    across, down = np.rint(np.asarray(theta)[:, :, 2] * (16, 24)).astype(int).T
    assert (across.min(), across.max(), down.min(), down.max()) == (-4, 4, -6, 6)
    edged = np.pad(x, ((0, 0), (6, 6), (4, 4), (0, 0)), "edge")
    expected = [
        each[6 + d : 54 + d, 4 + a : 36 + a] for each, a, d in zip(edged, across, down, strict=True)
    ]
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_mixup_blends_images_and_targets_with_the_same_weights():
    x, targets = images(6), jax.nn.one_hot(jnp.arange(6), 6)
    mixed, mixed_targets = mix(jax.random.key(0), x, targets, 0.4)
    shares = np.asarray(mixed_targets)[np.arange(6), np.arange(6)[::-1]]
    assert (shares > 0).all()
    assert (shares < 0.4).all()
    assert len(set(shares.tolist())) == 6
    np.testing.assert_allclose(mixed_targets.sum(1), 1, rtol=1e-6)
    spread = shares[:, None, None, None]
    np.testing.assert_allclose(mixed, (1 - spread) * x + spread * x[::-1], atol=1e-6)


def test_degraded_images_are_blurred_and_noisy_and_the_others_unchanged():
    x = images(400)
    out = np.asarray(augment(jax.random.key(0), x, dataclasses.replace(NOTHING, degrade=0.5)))
    changed = (out != np.asarray(x)).any((1, 2, 3))
    assert 160 < changed.sum() < 240
    # White noise has a standard deviation of 0.29; the weakest blur of 0.3 pixels leaves it.
    assert 0.05 < np.median(out[changed].std((1, 2, 3))) < 0.2
    grey = np.asarray(
        augment(jax.random.key(1), 0.5 + 0 * x, dataclasses.replace(NOTHING, degrade=1.0))
    )
    # Blurring leaves a grey image; gamma between exp(-0.7) and exp(0.7) gives 0.71 to 0.25.
    means = grey.mean((1, 2, 3))
    assert 0.24 < means.min() < 0.3
    assert 0.66 < means.max() < 0.72
    noise = grey.std((1, 2, 3))
    assert 0.07 < noise.max() < 0.09
    assert noise.min() < 0.005
