"""NaN and infinity in points and pixels have one meaning for all methods, paddings and sizes."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax.nn.spatial_transformer import METHODS, PADDINGS, affine_grid, grid_sample

SIDES = [(4, 6), (2, 1, 3)]
CASES = [
    (sides, method, padding)
    for sides, method, padding in product(SIDES, METHODS, PADDINGS)
    if not (len(sides) == 3 and method == "bicubic")
]
OVER_CASES = pytest.mark.parametrize(
    ("form", "sides", "method", "padding"),
    # The forms share the taps: volumes are enough for the other two.
    [
        (form, *case)
        for form in ("gather", "planes", "pairs")
        for case in CASES
        if form == "gather" or len(case[0]) == 3
    ],
    indirect=["form"],
)


def identity_grid(sides):
    axes = len(sides)
    return affine_grid(np.eye(axes, axes + 1)[None], sides)


@OVER_CASES
def test_nan_in_a_point_gives_nan_there_and_no_gradients(form, sides, method, padding):
    grid = identity_grid(sides).reshape(1, -1, len(sides))
    for point, other in enumerate((0.0, np.nan, np.inf)):
        grid = grid.at[0, point].set(other).at[0, point, point % 2].set(jnp.nan)
    image = jnp.ones((1, *sides, 3))

    @jax.jit
    def run(image, grid):
        out, pull_back = jax.vjp(lambda *both: grid_sample(*both, method, padding), image, grid)
        return out, pull_back(jnp.ones_like(out))

    out, (image_gradient, grid_gradient) = run(image, grid)
    expected = np.zeros(out.shape, bool)
    expected[:, :3] = True
    np.testing.assert_array_equal(np.isnan(out), expected)
    assert np.isfinite(grid_gradient).all()
    assert not grid_gradient[:, :3].any()
    np.testing.assert_allclose(run(image, grid[:, 3:])[1][0], image_gradient, atol=1e-5)


@OVER_CASES
def test_infinite_points_equal_the_farthest_finite_points(form, sides, method, padding):
    image = 1 + jnp.arange(np.prod(sides), dtype=jnp.float32).reshape(1, *sides, 1)
    points = np.array(list(product((-np.inf, np.inf), repeat=len(sides))), np.float32)[None]

    @jax.jit
    def run(image, points):
        out, pull_back = jax.vjp(lambda *both: grid_sample(*both, method, padding), image, points)
        return out, pull_back(jnp.ones_like(out))

    out, gradients = run(image, points)
    assert all(np.isfinite(a).all() for a in (out, *gradients))
    np.testing.assert_array_equal(out, run(image, np.nan_to_num(points))[0])
    assert not gradients[1].any()
    if padding == "zeros":
        assert not out.any()
    if padding == "border":
        ends = image[0, ..., 0][np.ix_(*([0, -1] for _ in sides))]
        np.testing.assert_allclose(out[0, :, 0], ends.transpose().reshape(-1), atol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS)
def test_infinity_with_one_pixel_and_other_conventions(padding):
    image, points = jnp.full((1, 1, 3, 1), 2.0), jnp.full((1, 1, 2), -jnp.inf)
    for corners, coordinates in product((False, True), ("normalized", "pixels")):
        out = grid_sample(image, points, "bilinear", padding, corners, coordinates)
        assert np.isfinite(out).all()
        assert padding == "zeros" or out == 2


@OVER_CASES
def test_a_nan_pixel_affects_exactly_the_points_that_tap_it(form, sides, method, padding):
    rng = np.random.default_rng(0)
    place = tuple(side // 2 for side in sides)
    image = np.ones((1, *sides, 2), np.float32)
    image[(0, *place, 0)] = np.nan
    positions = rng.integers(-3, max(sides) + 3, (60, len(sides))) + rng.uniform(0.1, 0.4)
    positions = np.concatenate([positions, [[side // 2 for side in sides]]])  # weights of 0
    points = positions[None, :, ::-1].astype(np.float32)
    sample = partial(grid_sample, method=method, padding=padding, coordinates="pixels")
    out = jax.jit(sample)(image, points)
    assert np.isfinite(out[..., 1]).all()
    hit = np.ones(len(positions), bool)
    for k, side in enumerate(sides):
        hit &= [place[k] in taps(p, side, method, padding) for p in positions[:, k]]
    assert hit.any()
    np.testing.assert_array_equal(np.isfinite(out[0, :, 0]), ~hit)


def taps(position, side, method, padding):
    """Pixels that a point reads along a side, implemented from the documentation."""
    if method != "bicubic":
        position = pad(position, side, padding)
    low = int(np.floor(position))
    chosen = {
        "nearest": [int(np.round(position))],
        "bilinear": [low, low + 1],
        "bicubic": [low - 1, low, low + 1, low + 2],
    }[method]
    if method == "bicubic":
        chosen = [int(pad(pixel, side, padding)) for pixel in chosen]
    return [pixel for pixel in chosen if 0 <= pixel < side]


def pad(position, side, padding):
    if padding == "reflection":
        while not -0.5 <= position <= side - 0.5:
            position = -1 - position if position < -0.5 else 2 * side - 1 - position
    return position if padding == "zeros" else min(max(position, 0), side - 1)
