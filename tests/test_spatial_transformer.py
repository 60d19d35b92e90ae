from itertools import product
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from deep_emotion_jax import spatial_transformer
from deep_emotion_jax.spatial_transformer import METHODS, PADDINGS, affine_grid, grid_sample

GOLDEN = np.load(Path(__file__).parent / "golden" / "grid_sample.npz")
CASES = list(product(METHODS, PADDINGS, (False, True)))
STRATEGIES = {"gather": 0, "dense": 10**9}


@pytest.fixture(params=STRATEGIES)
def strategy(request, monkeypatch):
    """Runs a test once per way of evaluating; anything jitted must be jitted inside the test."""
    monkeypatch.setattr(spatial_transformer, "DENSE_MAX_PIXELS", STRATEGIES[request.param])
    other = "_dense" if request.param == "gather" else "_gather"
    monkeypatch.setattr(spatial_transformer, other, None)
    return request.param


def random_image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def affine(rows):
    return jnp.asarray([rows], jnp.float32)


# PyTorch's values


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_golden_values_and_gradients(strategy, method, padding, corners):
    @jax.jit
    def run(image, grid, cotangent):
        sample = lambda image, grid: grid_sample(image, grid, method, padding, corners)  # noqa: E731
        out, pull_back = jax.vjp(sample, image, grid)
        return out, *pull_back(cotangent)

    out, image_gradient, grid_gradient = run(GOLDEN["image"], GOLDEN["grid"], GOLDEN["cotangent"])
    name = f"{method}/{padding}/{corners}"
    np.testing.assert_allclose(out, GOLDEN[f"{name}/out"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(image_gradient, GOLDEN[f"{name}/image_gradient"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(grid_gradient, GOLDEN[f"{name}/grid_gradient"], rtol=0, atol=1e-4)


def test_golden_points_reach_far_outside():
    assert (np.abs(GOLDEN["grid"]) > 1).mean() > 0.5
    assert np.abs(GOLDEN["grid"]).max() > 2.4


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(6, 5), (1, 4)])
def test_golden_affine_grid(size, corners):
    expected = GOLDEN[f"affine_grid/{size[0]}x{size[1]}/{corners}"]
    np.testing.assert_allclose(affine_grid(GOLDEN["theta"], size, corners), expected, atol=1e-6)


# Gradients


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_gradients_agree_with_finite_differences(strategy, method, padding, corners):
    with jax.enable_x64(True):
        image = jnp.asarray(GOLDEN["image"][:1], jnp.float64)
        grid = jnp.asarray(GOLDEN["grid"][:1, :3], jnp.float64)
        sample = jax.jit(lambda *args: grid_sample(*args, method, padding, corners))
        check_grads(sample, (image, grid), order=1, modes=["rev"], eps=1e-6, atol=1e-5, rtol=1e-5)


def test_bilinear_gradient_at_whole_pixels_is_the_forward_difference(strategy):
    # The identity, where every localization network starts, puts each point on a whole pixel.
    image = random_image(1, 5, 5, 1)
    grid = affine_grid(affine([[1, 0, 0], [0, 1, 0]]), (5, 5), align_corners=True)
    gradient = jax.grad(lambda grid: grid_sample(image, grid, align_corners=True).sum())(grid)
    padded = np.pad(image[0, ..., 0], ((0, 1), (0, 1)))
    pixels_per_unit = 2
    expected_x = pixels_per_unit * np.diff(padded[:-1], axis=1)
    expected_y = pixels_per_unit * np.diff(padded[:, :-1], axis=0)
    np.testing.assert_allclose(gradient[0, ..., 0], expected_x, atol=1e-5)
    np.testing.assert_allclose(gradient[0, ..., 1], expected_y, atol=1e-5)


def gradient_at(x, method="bilinear", padding="zeros"):
    """Derivative along x, in pixels, of reading a ramp [0, 1, 2, 3] at pixel x."""
    ramp = jnp.arange(4.0).reshape(1, 1, 4, 1)

    def read(position):
        grid = jnp.stack([(2 * position + 1) / 4 - 1, 0.0]).reshape(1, 1, 1, 2)
        return grid_sample(ramp, grid, method, padding)[0, 0, 0, 0]

    return jax.grad(read)(x)


def test_gradient_conventions(strategy):
    assert gradient_at(1.3) == pytest.approx(1)
    assert gradient_at(1.3, "nearest") == 0
    assert gradient_at(-0.9, padding="border") == 0
    assert gradient_at(5.2, padding="border") == 0
    assert gradient_at(-1.7, padding="reflection") == pytest.approx(-1)
    assert gradient_at(4.7, padding="reflection") == pytest.approx(-1)
    assert gradient_at(9.3, padding="reflection") == pytest.approx(1)
    assert gradient_at(9.3, padding="zeros") == 0


# Closed forms


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], lambda image: image),
        ([[-1, 0, 0], [0, 1, 0]], lambda image: image[:, :, ::-1]),
        ([[0, 1, 0], [-1, 0, 0]], lambda image: jnp.rot90(image, -1, (1, 2))),
    ],
    ids=["identity", "flip", "quarter turn"],
)
def test_exact_maps(strategy, theta, expected, method, corners):
    image = random_image(2, 7, 7, 3)
    grid = affine_grid(jnp.repeat(affine(theta), 2, 0), (7, 7), corners)
    out = grid_sample(image, grid, method, "border", corners)
    np.testing.assert_allclose(out, expected(image), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_whole_pixel_shift(strategy, method):
    # Reads two pixels to the right and one down: 2 * pixels / size in normalised coordinates.
    image = random_image(1, 5, 8, 2)
    grid = affine_grid(affine([[1, 0, 2 * 2 / 8], [0, 1, 2 * 1 / 5]]), (5, 8))
    out = grid_sample(image, grid, method)
    expected = jnp.zeros_like(image).at[:, :-1, :-2].set(image[:, 1:, 2:])
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_one_pixel_image(strategy):
    image = jnp.full((1, 1, 1, 1), 3.0)
    grid = jnp.asarray([-7.0, 0.0, 0.4, 7.0]).reshape(1, 1, 4, 1) * jnp.array([1.0, 0.0])
    for method, corners in product(METHODS, (False, True)):
        for padding in ("border", "reflection"):
            out = grid_sample(image, grid, method, padding, corners)
            np.testing.assert_allclose(out, jnp.full((1, 1, 4, 1), 3.0), rtol=1e-5)


# Totality

FINITE = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-3, 3, width=32),
    st.sampled_from([0.0, -1.0, 1.0, 1e30, -1e30, 3e38]),
)
GRIDS = hnp.arrays(np.float32, (1, 2, 3, 2), elements=FINITE)


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_any_finite_grid_gives_finite_numbers(method, padding, corners):
    image = random_image(1, 4, 5, 2)
    low, high = float(image.min()), float(image.max())

    def total(image, grid):
        out = grid_sample(image, grid, method, padding, corners)
        return out.sum(), out

    with pytest.MonkeyPatch.context() as patch:
        run = {}
        for strategy, limit in STRATEGIES.items():
            patch.setattr(spatial_transformer, "DENSE_MAX_PIXELS", limit)
            compiled = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
            run[strategy] = compiled.lower(image, jnp.zeros((1, 2, 3, 2))).compile()

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(GRIDS)
    def check(grid):
        results = [f(image, jnp.asarray(grid)) for f in run.values()]
        chex.assert_tree_all_finite(results)
        chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-4)
        if padding != "zeros" and method != "bicubic":
            (_, out), _ = results[0]
            assert low - 1e-5 <= out.min()
            assert out.max() <= high + 1e-5

    check()


@pytest.mark.parametrize("theta", [np.zeros((2, 3)), np.full((2, 3), 1e30), [[1, 1, 0], [1, 1, 0]]])
def test_degenerate_theta(strategy, theta):
    image = random_image(1, 6, 6, 1)

    def total(theta):
        return grid_sample(image, affine_grid(theta, (6, 6)), padding="reflection").sum()

    chex.assert_tree_all_finite(jax.value_and_grad(total)(affine(theta)))


def test_nan_shows(strategy):
    out = grid_sample(random_image(1, 4, 4, 1), jnp.full((1, 2, 2, 2), jnp.nan))
    assert jnp.isnan(out).all()


# Types and transformations


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True)
    def test_same_numbers_compiled_or_not(self):
        for side, method in product((5, 11), METHODS):
            image = random_image(2, side, side, 3)
            grid = affine_grid(jnp.asarray(GOLDEN["theta"]), (4, 6))
            run = self.variant(lambda image, grid, m=method: grid_sample(image, grid, m))
            expected = grid_sample(image, grid, method)
            np.testing.assert_allclose(run(image, grid), expected, atol=1e-5)


def test_vmap_under_jit(strategy):
    images = random_image(3, 2, 5, 4, 2)
    thetas = random_image(3, 2, 2, 3, seed=1)

    def loss(image, theta):
        return (grid_sample(image, affine_grid(theta, (6, 7)), "bicubic", "border") ** 2).sum()

    gradient = jax.grad(loss, (0, 1))
    together = jax.jit(jax.vmap(gradient))(images, thetas)
    one_by_one = [gradient(*pair) for pair in zip(images, thetas, strict=True)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    chex.assert_trees_all_close(together, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_image_is_close_to_float32(strategy, method):
    image = random_image(2, 6, 5, 3).astype(jnp.bfloat16)
    grid = jnp.asarray(GOLDEN["grid"])

    def run(image):
        out = grid_sample(image, grid, method, "border")
        return out, jax.grad(lambda image: grid_sample(image, grid, method).sum())(image)

    half, full = run(image), run(image.astype(jnp.float32))
    chex.assert_trees_all_equal_dtypes(half, (image, image))
    # Bfloat16 rounds to 8 bits. The output is rounded once: coordinates are not.
    np.testing.assert_allclose(half[0].astype(jnp.float32), full[0], rtol=2**-8, atol=1e-5)
    np.testing.assert_allclose(half[1].astype(jnp.float32), full[1], rtol=0.05, atol=0.1)


def test_bfloat16_theta_and_grid_keep_float32_coordinates():
    theta = affine([[1, 0, 0], [0, 1, 0]])
    chex.assert_trees_all_equal(
        affine_grid(theta.astype(jnp.bfloat16), (48, 48)), affine_grid(theta, (48, 48))
    )
    image = random_image(1, 48, 48, 1)
    grid = jnp.full((1, 1, 1, 2), 0.703125, jnp.bfloat16)
    chex.assert_trees_all_equal(
        grid_sample(image, grid), grid_sample(image, grid.astype(jnp.float32))
    )


# Choice of strategy and errors


def test_map_size_decides_the_strategy(monkeypatch):
    monkeypatch.setattr(spatial_transformer, "_dense", lambda image, x, y: jnp.array(1.0))
    monkeypatch.setattr(spatial_transformer, "_gather", lambda image, x, y: jnp.array(2.0))
    grid = jnp.zeros((1, 30, 30, 2))
    side = int(spatial_transformer.DENSE_MAX_PIXELS**0.5)
    assert grid_sample(jnp.zeros((1, side, side, 1)), grid) == 1
    assert grid_sample(jnp.zeros((1, side + 1, side + 1, 1)), grid) == 2


@pytest.mark.parametrize(
    ("image", "grid", "options", "message"),
    [
        ((1, 4, 4, 1), (1, 2, 2, 2), {"method": "cubic"}, "'cubic'"),
        ((1, 4, 4, 1), (1, 2, 2, 2), {"padding": "wrap"}, "'wrap'"),
        ((4, 4, 1), (1, 2, 2, 2), {}, r"\[4, 4, 1\]"),
        ((1, 4, 4, 1), (2, 2, 2), {}, r"\[2, 2, 2\]"),
        ((1, 4, 4, 1), (1, 2, 2, 3), {}, r"\[1, 2, 2, 3\]"),
        ((3, 4, 4, 1), (1, 2, 2, 2), {}, r"\[3, 4, 4, 1\]"),
        ((1, 0, 4, 1), (1, 2, 2, 2), {}, r"\[1, 0, 4, 1\]"),
    ],
)
def test_grid_sample_names_what_is_wrong(image, grid, options, message):
    with pytest.raises(ValueError, match=message):
        grid_sample(jnp.zeros(image), jnp.zeros(grid), **options)


def test_integer_image_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        grid_sample(jnp.zeros((1, 4, 4, 1), jnp.uint8), jnp.zeros((1, 2, 2, 2)))


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 3), (1, 6)])
def test_affine_grid_refuses_other_thetas(shape):
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[")):
        affine_grid(jnp.zeros(shape), (4, 4))


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (1, 2, 3)])
def test_affine_grid_refuses_other_sizes(size):
    with pytest.raises(ValueError, match="size must be"):
        affine_grid(jnp.zeros((1, 2, 3)), size)
