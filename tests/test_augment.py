"""Augmentation: range, shape, closed forms, and one draw per image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax.augment import Augmentation, augment, random_theta

EVERYTHING = Augmentation(flip=True, shift=0.1, rotate=15, scale=0.1, contrast=0.3, erase=0.5)


def images(count=16):
    return jax.random.uniform(jax.random.key(3), (count, 48, 48, 1))


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(augment(jax.random.key(0), images(), Augmentation()), images())


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    x = images(200)
    out = augment(jax.random.key(0), x, Augmentation(flip=True))
    mirrored = np.array([np.array_equal(o, i[:, ::-1]) for o, i in zip(out, x, strict=True)])
    same = np.array([np.array_equal(o, i) for o, i in zip(out, x, strict=True)])
    assert (mirrored ^ same).all()
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize(
    "settings", [EVERYTHING, *[Augmentation(**{k: v}) for k, v in EVERYTHING._asdict().items()]]
)
def test_range_and_shape_stay_and_keys_decide(settings):
    out = augment(jax.random.key(0), images(), settings)
    assert out.shape == images().shape
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    np.testing.assert_array_equal(out, augment(jax.random.key(0), images(), settings))
    assert not np.array_equal(out, augment(jax.random.key(1), images(), settings))


def test_every_image_gets_its_own_draw():
    same = jnp.broadcast_to(images(1), (8, 48, 48, 1))
    out = np.asarray(augment(jax.random.key(0), same, EVERYTHING))
    assert len({o.tobytes() for o in out}) == 8


def test_theta_is_a_similarity_within_the_limits():
    settings = Augmentation(flip=True, shift=0.1, rotate=20, scale=0.2)
    theta = np.asarray(random_theta(jax.random.key(0), 2000, settings))
    turn = theta[:, :, :2]
    size = np.sqrt(np.abs(np.linalg.det(turn)))
    gram = turn @ turn.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, size[:, None, None] ** 2 * np.eye(2)[None], atol=1e-5)
    assert 0.8 <= size.min() < 0.82
    assert 1.18 < size.max() <= 1.2001
    assert 0.19 < np.abs(theta[:, :, 2]).max() <= 0.2
    degrees = np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 1, 1]))
    assert 19 < np.abs(degrees).max() <= 20.001
    assert 0.45 < (np.linalg.det(turn) < 0).mean() < 0.55


def test_a_shift_of_whole_pixels_moves_the_picture():
    settings = Augmentation(shift=0.25)
    key = jax.random.key(5)
    theta_key = jax.random.split(key, 3)[0]
    shift = np.asarray(random_theta(theta_key, 16, settings))[:, :, 2] * 24  # pixels
    x = jnp.zeros((16, 48, 48, 1)).at[:, 24, 24].set(1.0)
    out = np.asarray(augment(key, x, settings))[..., 0]
    rows, columns = np.mgrid[:48, :48]
    centre = (
        np.stack([(out * columns).sum((1, 2)), (out * rows).sum((1, 2))], -1)
        / out.sum((1, 2))[:, None]
    )
    np.testing.assert_allclose(centre, 24 - shift, atol=1e-3)
