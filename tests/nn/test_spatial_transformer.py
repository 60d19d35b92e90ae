from functools import partial
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import GOLDEN_FILES
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from deep_emotion_jax.nn import pixel_reads
from deep_emotion_jax.nn.spatial_transformer import METHODS, PADDINGS, affine_grid, grid_sample

GOLDEN = np.load(GOLDEN_FILES / "grid_sample.npz")
CASES = list(product(METHODS, PADDINGS, (False, True)))


def random_image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def affine(rows):
    return jnp.asarray([rows], jnp.float32)


# PyTorch's values


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_golden_values_and_gradients(form, method, padding, corners):
    def sample(image, grid):
        return grid_sample(image, grid, method, padding, corners)

    out, pull_back = jax.vjp(sample, GOLDEN["image"], GOLDEN["grid"])
    image_gradient, grid_gradient = pull_back(jnp.asarray(GOLDEN["cotangent"]))
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


@pytest.mark.parametrize(
    ("method", "padding"),
    [("bilinear", "zeros"), ("bilinear", "reflection"), ("bicubic", "border")],
)
def test_gradients_agree_with_finite_differences(form, method, padding):
    with jax.enable_x64(True):
        image = jnp.asarray(GOLDEN["image"], jnp.float64)
        grid = jnp.asarray(GOLDEN["grid"], jnp.float64)
        sample = jax.jit(partial(grid_sample, method=method, padding=padding))
        check_grads(sample, (image, grid), order=1, modes=["rev"], eps=1e-6, atol=1e-5, rtol=1e-5)


def test_bilinear_gradient_at_whole_pixels_is_the_forward_difference(form):
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


def slopes(positions, method, padding):
    """Derivatives along x, in pixels, of reading the ramp [0, 1, 2, 3, 4] at pixels x."""
    ramp = jnp.broadcast_to(jnp.arange(5.0)[:, None], (1, 5, 5, 1))
    x = (2 * np.broadcast_to(positions, (1, 5, 5)) + 1) / 5 - 1
    grid = jnp.asarray(np.stack([x, 0 * x], -1), jnp.float32)
    gradient = jax.grad(lambda grid: grid_sample(ramp, grid, method, padding).sum())(grid)
    return gradient[0, 0, :, 0] * 2 / 5


@pytest.mark.parametrize(
    ("method", "padding", "expected"),
    [
        ("bilinear", "zeros", [0, 0, 1, -4, 0]),
        ("bilinear", "border", [0, 0, 1, 0, 0]),
        ("bilinear", "reflection", [-1, 0, 1, 0, 1]),
        ("nearest", "reflection", [0, 0, 0, 0, 0]),
    ],
)
def test_gradient_conventions(form, method, padding, expected):
    out = slopes([-1.7, -0.9, 1.3, 4.4, 11.3], method, padding)
    np.testing.assert_allclose(out, expected, atol=1e-5)


# Closed forms


@pytest.mark.parametrize(
    ("method", "corners"), [("bilinear", False), ("bilinear", True), ("bicubic", True)]
)
@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], lambda image: image),
        ([[-1, 0, 0], [0, 1, 0]], lambda image: image[:, :, ::-1]),
        ([[0, 1, 0], [-1, 0, 0]], lambda image: jnp.rot90(image, -1, (1, 2))),
    ],
    ids=["identity", "flip", "quarter turn"],
)
def test_exact_maps(form, theta, expected, method, corners):
    image = random_image(1, 5, 5, 1)
    out = grid_sample(image, affine_grid(affine(theta), (5, 5), corners), method, "border", corners)
    np.testing.assert_allclose(out, expected(image), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_whole_pixel_shift(form, method):
    # Reads two pixels to the right and one down: 2 * pixels / size in normalized coordinates.
    image = random_image(1, 5, 5, 1)
    grid = affine_grid(affine([[1, 0, 2 * 2 / 5], [0, 1, 2 * 1 / 5]]), (5, 5))
    expected = jnp.zeros_like(image).at[:, :-1, :-2].set(image[:, 1:, 2:])
    np.testing.assert_allclose(grid_sample(image, grid, method), expected, atol=1e-5)


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_one_pixel_image_is_everywhere(padding):
    image = jnp.full((1, 1, 1, 1), 3.0)
    grid = jnp.asarray([[-7.0, 0], [0, 0], [0.4, 7]]).reshape(1, 1, 3, 2)
    for corners in (False, True):
        out = grid_sample(image, grid, padding=padding, align_corners=corners)
        np.testing.assert_allclose(out, jnp.full((1, 1, 3, 1), 3.0), rtol=1e-6)


# Finite outputs

FINITE = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-3, 3, width=32),
    st.sampled_from([0.0, -1.0, 1.0, 1e30, -1e30, 3e38]),
)
GRIDS = hnp.arrays(np.float32, (1, 2, 3, 2), elements=FINITE)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("method", METHODS)
def test_any_finite_grid_gives_finite_numbers(method, padding):
    image = random_image(1, 4, 5, 2)
    run = jax.jit(partial(value_and_gradients, method=method, padding=padding, corners=False))

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(GRIDS)
    def check(grid):
        assert_finite(image, *run(image, grid), method, padding)

    check()


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_points_at_the_limits_of_float32(form, method, padding, corners):
    image = GOLDEN["image"]
    grid = np.where(GOLDEN["grid"] > 0, np.float32(3e38), np.float32(-1e30))
    out, gradients = value_and_gradients(image, grid, method, padding, corners)
    assert_finite(image, out, gradients, method, padding)
    if padding == "zeros":
        assert not out.any()
    elif method != "bicubic":  # every point reads a pixel
        assert (jnp.abs(out) > 1e-6).all()


def value_and_gradients(image, grid, method, padding, corners):
    sample = partial(grid_sample, method=method, padding=padding, align_corners=corners)
    out, pull_back = jax.vjp(sample, image, grid)
    return out, pull_back(jnp.ones_like(out))


def assert_finite(image, out, gradients, method, padding):
    chex.assert_tree_all_finite((out, gradients))
    if padding != "zeros" and method != "bicubic":
        assert image.min() - 1e-5 <= out.min()
        assert out.max() <= image.max() + 1e-5


@pytest.mark.parametrize("theta", [np.zeros((2, 3)), np.full((2, 3), 1e30)])
def test_degenerate_theta(form, theta):
    image = random_image(1, 5, 5, 1)

    def total(theta):
        return grid_sample(image, affine_grid(theta, (5, 5)), padding="reflection").sum()

    chex.assert_tree_all_finite(jax.value_and_grad(total)(affine(theta)))


def test_nan_propagates(form):
    out = grid_sample(random_image(1, 5, 5, 1), jnp.full((1, 5, 5, 2), jnp.nan))
    assert jnp.isnan(out).all()


# Types and transformations


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_values_do_not_depend_on_jit(self):
        run = self.variant(grid_sample)
        out = run(GOLDEN["image"], GOLDEN["grid"])
        np.testing.assert_allclose(out, GOLDEN["bilinear/zeros/False/out"], atol=1e-5)


def test_vmap_under_jit(form):
    images, thetas = random_image(2, 1, 5, 5, 1), random_image(2, 1, 2, 3, seed=1)

    def loss(image, theta):
        return (grid_sample(image, affine_grid(theta, (5, 5)), padding="border") ** 2).sum()

    gradient = jax.grad(loss, (0, 1))
    together = jax.jit(jax.vmap(gradient))(images, thetas)
    one_by_one = [gradient(*pair) for pair in zip(images, thetas, strict=True)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    chex.assert_trees_all_close(together, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_image_is_float32_rounded_once(form):
    image = jnp.asarray(GOLDEN["image"], jnp.bfloat16)

    def run(image):
        out, pull_back = jax.vjp(lambda image: grid_sample(image, GOLDEN["grid"]), image)
        return out, *pull_back(jnp.ones_like(out))

    half, full = run(image), run(image.astype(jnp.float32))
    chex.assert_trees_all_equal_dtypes(half, (image, image))
    half = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    chex.assert_trees_all_close(half, full, rtol=2**-8, atol=1e-5)


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


# Choice of the form and errors


@pytest.mark.parametrize(
    ("platform", "channels", "method", "form"),
    [
        ("cpu", 1, "bilinear", "planes"),
        ("cpu", pixel_reads.MAX_PLANES, "nearest", "planes"),
        ("cpu", pixel_reads.MAX_PLANES + 1, "bilinear", "pairs"),
        ("cpu", pixel_reads.MAX_PLANES + 1, "nearest", "gather"),
        ("cpu", 1, "bicubic", "gather"),
        ("gpu", 10, "bilinear", "gather"),
        ("tpu", 1, "bilinear", "gather"),
    ],
)
def test_platform_channels_and_method_choose_the_form(
    monkeypatch, platform, channels, method, form
):
    monkeypatch.setattr(pixel_reads, "platform", lambda: platform)
    for name in ("gather", "planes", "pairs"):
        answer = jnp.full((1, 4, channels), float(len(name)))
        monkeypatch.setattr(pixel_reads, name, lambda image, points, settings, a=answer: a)
    out = grid_sample(jnp.zeros((1, 3, 3, channels)), jnp.zeros((1, 2, 2, 2)), method)
    assert (out == len(form)).all()


def test_a_grid_may_have_any_shape():
    image = jnp.arange(12.0).reshape(1, 3, 4, 1)
    whole = grid_sample(image, affine_grid(jnp.eye(2, 3)[None], (3, 4)))
    flat = affine_grid(jnp.eye(2, 3)[None], (3, 4)).reshape(1, 12, 2)
    np.testing.assert_array_equal(grid_sample(image, flat), whole.reshape(1, 12, 1))
    np.testing.assert_array_equal(grid_sample(image, flat[:, 5]), whole.reshape(1, 12, 1)[:, 5])


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
def test_grid_sample_names_the_wrong_argument(image, grid, options, message):
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
