"""First and second derivatives, and JAX's transformations."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample

CASES = [
    ((4, 5), "bilinear", "zeros"),
    ((4, 5), "bicubic", "zeros"),
    ((3, 4, 5), "bilinear", "border"),
]
OVER_CASES = pytest.mark.parametrize(
    ("sides", "method", "padding"), CASES, ids=["-".join(map(str, case)) for case in CASES]
)


def arrays(sides, dtype=jnp.float32, n=2, points=6):
    """Random pixels, and points away from kinks."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(n, *sides, 2))
    whole = rng.integers(-1, min(sides), (n, points, len(sides)))
    positions = whole + rng.uniform(0.1, 0.4, whole.shape)
    grid = (2 * positions + 1) / np.array(sides[::-1]) - 1
    return jnp.asarray(image, dtype), jnp.asarray(grid, dtype)


@OVER_CASES
def test_second_order_agrees_with_finite_differences(form, sides, method, padding):
    # Forward mode only: the next test compares all modes.
    with jax.enable_x64(True):
        sample = jax.jit(partial(grid_sample, method=method, padding=padding))
        check_grads(
            sample, arrays(sides, jnp.float64), order=2, modes=["fwd"], atol=1e-4, rtol=1e-4
        )


@OVER_CASES
def test_hessian_is_the_same_in_every_mode(form, sides, method, padding):
    arguments, unravel = ravel_pytree(arrays(sides, n=1, points=2))

    def loss(arguments):
        return (grid_sample(*unravel(arguments), method, padding) ** 2).sum()

    @jax.jit
    def hessians(arguments):
        modes = product((jax.jacfwd, jax.jacrev), repeat=2)
        return [outer(inner(loss))(arguments) for outer, inner in modes]

    expected, *others = hessians(arguments)
    points = slice(-2 * len(sides), None)
    assert jnp.abs(expected[points, points]).max() > 0.1
    for other in others:
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sides", [(4, 5), (3, 4, 5)])
def test_forms_have_the_same_derivatives_at_whole_pixels(form, sides):
    image, _ = arrays(sides)
    axes = len(sides)
    theta = jnp.asarray(np.eye(axes, axes + 1)[None].repeat(2, 0), jnp.float32)
    grid = affine_grid(theta, sides, align_corners=True)
    gradient = jax.jit(jax.grad(lambda g: grid_sample(image, g, align_corners=True).sum()))(grid)
    total = np.pad(np.asarray(image).sum(-1), [(0, 0)] + [(0, 1)] * axes)
    for k, side in enumerate(sides):
        inner = [slice(None)] + [slice(None) if j == k else slice(-1) for j in range(axes)]
        slope = np.diff(total[tuple(inner)], axis=1 + k) * (side - 1) / 2
        np.testing.assert_allclose(gradient[..., axes - 1 - k], slope, atol=1e-4)


def loss_and_gradients(image, grid):
    def loss(image, grid):
        return (grid_sample(image, grid, padding="border") ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))(image, grid)


def per_image(image, grid):
    run = jax.jit(
        lambda *one: loss_and_gradients(*one)
    )  # a new function, so that each form is traced
    one_by_one = [run(i[None], g[None]) for i, g in zip(image, grid, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)


@pytest.mark.parametrize("transformation", ["vmap", "scan", "shard_map"])
def test_transformations(form, transformation):
    image, grid = arrays((3, 4, 5), n=2 * jax.device_count())
    expected = per_image(image, grid)

    def each(image, grid):
        return loss_and_gradients(image[None], grid[None])

    if transformation == "vmap":
        run = jax.vmap(each)
    elif transformation == "scan":

        def run(image, grid):
            return jax.lax.scan(lambda carry, one: (carry, each(*one)), 0, (image, grid))[1]
    else:
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=auto)
        batch = jax.P("data")
        run = jax.shard_map(
            lambda *both: jax.lax.map(lambda one: each(*one), both),
            mesh=mesh,
            in_specs=batch,
            out_specs=batch,
        )
    found = jax.jit(run)(image, grid)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


def test_a_batch_in_parts_equals_the_batch(form):
    # The fixture computes one image at a time.
    image, grid = arrays((4, 5), n=5)
    together = grid_sample(image, grid)
    alone = [grid_sample(image[k : k + 1], grid[k : k + 1])[0] for k in range(5)]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-6)
