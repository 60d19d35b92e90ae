"""Image augmentation in pure jax.numpy, as part of the compiled training step."""

import jax
import jax.numpy as jnp

from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample
from deep_emotion_jax.training.config import Augmentation


def augment(key: jax.Array, images: jax.Array, settings: Augmentation) -> jax.Array:
    """Transforms each image [N, H, W, C] in [0, 1] at random, keeping shape and range.

    The paper does not specify its augmentation; these are our choices.
    """
    theta_key, contrast_key, erase_key = jax.random.split(key, 3)
    if settings.shift or settings.rotate or settings.scale:
        theta = random_theta(theta_key, images.shape[:3], settings)
        images = grid_sample(
            images, affine_grid(theta, (images.shape[1], images.shape[2])), padding="border"
        )
    elif settings.flip:
        mirrored = jax.random.bernoulli(theta_key, shape=(len(images), 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if settings.contrast:
        factor = _uniform(contrast_key, settings.contrast, (len(images), 1, 1, 1))
        mean = images.mean((1, 2, 3), keepdims=True)
        images = jnp.clip(mean + (1 + factor) * (images - mean), 0, 1)
    if settings.degrade:  # its key leaves those of the other changes as they were
        images = _degrade(jax.random.fold_in(key, 2), images, settings.degrade)
    if settings.erase:
        images = _erase(erase_key, images, settings.erase)
    return images


def mix(
    key: jax.Array, images: jax.Array, targets: jax.Array, largest: float
) -> tuple[jax.Array, jax.Array]:
    """Blends each image [N, H, W, C] and its target [N, K] with another of the batch (mixup)."""
    share = jax.random.uniform(key, (len(images), 1), maxval=largest)
    spread = share[..., None, None]
    # Batches are shuffled, so reversing one pairs each image with a random other.
    images = (1 - spread) * images + spread * images[::-1]
    return images, (1 - share) * targets + share * targets[::-1]


def random_theta(key: jax.Array, shape: tuple[int, ...], settings: Augmentation) -> jax.Array:
    """Draws affine maps [N, 2, 3] that mirror, rotate, scale and shift images.

    Args:
      key: random key.
      shape: (N, H, W).
      settings: the ranges of the maps.
    """
    count, height, width = shape
    flip_key, turn_key, scale_key, shift_key = jax.random.split(key, 4)
    turn = _uniform(turn_key, settings.rotate * jnp.pi / 180, (count,))
    factor = 1 + _uniform(scale_key, settings.scale, (count,))
    side = jnp.array([width, height])
    pixels = jnp.round(_uniform(shift_key, settings.shift, (count, 2)) * side)
    shift = 2 * pixels / side  # normalised coordinates span [-1, 1]
    mirror = jnp.where(
        jax.random.bernoulli(flip_key, 0.5 if settings.flip else 0.0, (count,)), -1, 1
    )
    cos, sin = factor * jnp.cos(turn), factor * jnp.sin(turn)
    x = jnp.stack([mirror * cos, -mirror * sin, shift[:, 0]], -1)
    y = jnp.stack([sin, cos, shift[:, 1]], -1)
    return jnp.stack([x, y], 1)


def _degrade(key: jax.Array, images: jax.Array, share: float) -> jax.Array:
    """Blurs images by up to 1.8 pixels, changes their gamma and adds noise of up to 8 %."""
    n, height, width, _ = images.shape
    choice_key, blur_key, gamma_key, level_key, noise_key = jax.random.split(key, 5)
    deviation = jax.random.uniform(blur_key, (n, 1, 1), minval=0.3, maxval=1.8)
    rows, columns = (_gaussian(side, deviation) for side in (height, width))
    changed = jnp.einsum("nij,njkc,nlk->nilc", rows, images, columns)
    changed = changed ** jnp.exp(_uniform(gamma_key, 0.7, (n, 1, 1, 1)))
    level = jax.random.uniform(level_key, (n, 1, 1, 1), maxval=0.08)
    changed += level * jax.random.normal(noise_key, images.shape, images.dtype)
    chosen = jax.random.bernoulli(choice_key, share, (n, 1, 1, 1))
    return jnp.where(chosen, jnp.clip(changed, 0, 1), images)


def _gaussian(side: int, deviation: jax.Array) -> jax.Array:
    """Returns matrices [N, side, side] that blur along an axis; their rows sum to 1."""
    pixels = jnp.arange(side)
    return jax.nn.softmax(-(((pixels[:, None] - pixels) / deviation) ** 2) / 2)


def _erase(key: jax.Array, images: jax.Array, largest: float) -> jax.Array:
    n, height, width, _ = images.shape
    size_key, centre_key, noise_key, choice_key = jax.random.split(key, 4)
    half = jax.random.uniform(size_key, (n, 1, 1), maxval=largest / 2)
    centre = jax.random.uniform(centre_key, (2, n, 1, 1))
    rows = (jnp.arange(height) + 0.5)[None, :, None] / height
    columns = (jnp.arange(width) + 0.5)[None, None, :] / width
    square = (jnp.abs(rows - centre[0]) < half) & (jnp.abs(columns - centre[1]) < half)
    square &= jax.random.bernoulli(choice_key, shape=(n, 1, 1))
    noise = jax.random.uniform(noise_key, images.shape, images.dtype)
    return jnp.where(square[..., None], noise, images)


def _uniform(key: jax.Array, largest: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * largest
