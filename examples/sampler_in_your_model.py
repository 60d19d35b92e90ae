"""Use the affine sampler in your own model: learn to move a blob to the centre of its image.

    python examples/sampler_in_your_model.py

A linear layer predicts an affine map theta from each image, and the sampler resamples the image
with it. The layer is trained end to end through the gradient of the sampler. Needs only JAX.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deep_emotion_jax import affine_grid, grid_sample

SIDE = 16
IDENTITY = jnp.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def blobs(key: jax.Array, count: int) -> jax.Array:
    """Draw images [count, 16, 16, 1] with a blob at a random position."""
    centre = jax.random.uniform(key, (count, 2, 1, 1), minval=-0.5, maxval=0.5)
    y, x = jnp.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return jnp.exp(-8 * ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2))[..., None]


def centred(weights: jax.Array, images: jax.Array) -> jax.Array:
    """Resample images [N, 16, 16, 1] with the layer's theta."""
    theta = images.reshape(len(images), -1) @ weights + IDENTITY
    return grid_sample(images, affine_grid(theta.reshape(-1, 2, 3), (SIDE, SIDE)))


def loss(weights: jax.Array, images: jax.Array) -> jax.Array:
    """Return the mean squared difference to a blob in the centre."""
    y, x = jnp.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    target = jnp.exp(-8 * (x**2 + y**2))[..., None]
    return jnp.mean((centred(weights, images) - target) ** 2)


@jax.jit
def step(weights: jax.Array, key: jax.Array) -> jax.Array:
    """Take one step of gradient descent on new images."""
    return weights - 0.5 * jax.grad(loss)(weights, blobs(key, 64))


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, print the loss before and after, and return their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)

    weights = jnp.zeros((SIDE * SIDE, 6))
    test = blobs(jax.random.key(1), 256)
    before = loss(weights, test)
    for key in jax.random.split(jax.random.key(0), options.steps):
        weights = step(weights, key)
    after = loss(weights, test)
    print(f"squared error: {before:.4f} before, {after:.4f} after {options.steps} steps")
    return float(after / before)


if __name__ == "__main__":
    main()
