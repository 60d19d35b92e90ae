"""Volumes, pixel coordinates, grids of other shapes, dtypes and lists."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import GOLDEN_FILES
from scipy import ndimage

from deep_emotion_jax.nn.spatial_transformer import PADDINGS, affine_grid, grid_sample

GOLDEN = np.load(GOLDEN_FILES / "grid_sample_3d.npz")
CASES = list(product(("bilinear", "nearest"), PADDINGS, (False, True)))
TWO_OR_THREE = pytest.mark.parametrize("sides", [(5, 4), (3, 5, 4)], ids=["image", "volume"])


def random_image(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def identity(axes):
    return np.eye(axes, axes + 1, dtype=np.float32)[None]


@pytest.mark.parametrize(("method", "padding", "corners"), CASES)
def test_golden_values_and_gradients(form, method, padding, corners):
    def sample(image, grid):
        return grid_sample(image, grid, method, padding, corners)

    @jax.jit
    def run(image, grid, cotangent):
        out, pull_back = jax.vjp(sample, image, grid)
        return out, *pull_back(cotangent)

    out, image_gradient, grid_gradient = run(GOLDEN["image"], GOLDEN["grid"], GOLDEN["cotangent"])
    name = f"{method}/{padding}/{corners}"
    np.testing.assert_allclose(out, GOLDEN[f"{name}/out"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(image_gradient, GOLDEN[f"{name}/image_gradient"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(grid_gradient, GOLDEN[f"{name}/grid_gradient"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(3, 4, 5), (1, 2, 3)])
def test_golden_affine_grid(size, corners):
    expected = GOLDEN[f"affine_grid/{'x'.join(map(str, size))}/{corners}"]
    np.testing.assert_allclose(affine_grid(GOLDEN["theta"], size, corners), expected, atol=1e-6)


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "grid-constant"), ("border", "nearest")])
@TWO_OR_THREE
def test_pixel_coordinates_match_scipy_map_coordinates(form, sides, padding, mode):
    image = random_image(1, *sides, 1)
    rng = np.random.default_rng(1)
    points = rng.uniform(-2, 7, (1, 50, len(sides))).astype(np.float32)
    out = grid_sample(image, points, padding=padding, coordinates="pixels")
    rows_first = points[0, :, ::-1].T
    expected = ndimage.map_coordinates(np.asarray(image)[0, ..., 0], rows_first, order=1, mode=mode)
    np.testing.assert_allclose(out[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("corners", [False, True])
@TWO_OR_THREE
def test_pixel_and_normalized_coordinates_agree(sides, padding, corners):
    image = random_image(2, *sides, 3)
    points = np.random.default_rng(1).uniform(-3, 8, (2, 4, 5, len(sides))).astype(np.float32)
    size = np.array(sides[::-1])
    normalized = 2 * points / (size - 1) - 1 if corners else (2 * points + 1) / size - 1
    for method in ("bilinear", "bicubic")[: 4 - len(sides)]:
        out = grid_sample(image, points, method, padding, corners, "pixels")
        expected = grid_sample(image, normalized, method, padding, corners)
        np.testing.assert_allclose(out, expected, atol=2e-5)


@TWO_OR_THREE
def test_grid_may_have_any_number_of_axes(form, sides):
    image, axes = random_image(2, *sides, 2), len(sides)
    points = random_image(2, 6, axes, seed=1) * 0.5
    flat = grid_sample(image, points)
    assert flat.shape == (2, 6, 2)
    for shape in ((2, 3, 2, axes), (2, 1, 3, 1, 2, axes)):
        out = grid_sample(image, points.reshape(shape))
        np.testing.assert_allclose(out, flat.reshape(*shape[:-1], 2), atol=1e-6)
    np.testing.assert_allclose(grid_sample(image, points[:, 0]), flat[:, 0], atol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_exact_maps_of_a_volume(form, method):
    image = random_image(1, 3, 4, 5, 6)
    x_and_z_swapped = [[[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]]
    for theta, expected in (
        (identity(3), image),
        (identity(3) * np.array([1, 1, -1, 1]), image[:, ::-1]),
        (x_and_z_swapped, image.transpose(0, 3, 2, 1, 4)),
    ):
        grid = affine_grid(theta, expected.shape[1:-1])
        out = grid_sample(image, grid, method, "border")
        np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("corners", [False, True])
@TWO_OR_THREE
def test_a_side_of_one_pixel_equals_a_repeated_pixel(form, sides, padding, corners):
    # Along a side of one pixel, border and reflection read that pixel everywhere.
    points = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 40, len(sides))), jnp.float32)
    for thin in range(len(sides)):
        shape = [1 if k == thin else side for k, side in enumerate(sides)]
        image = random_image(1, *shape, 2)
        out = grid_sample(image, points, "bilinear", padding, corners)
        if padding == "zeros" and not corners:
            wide = jnp.pad(image, [(0, 0), *((1, 1) if n == 1 else (0, 0) for n in shape), (0, 0)])
            scale = [1 / 3 if n == 1 else 1 for n in shape][::-1]
            expected = grid_sample(wide, points * jnp.array(scale))
        elif padding == "zeros":
            expected = grid_sample(image, points.at[..., -1 - thin].set(0), align_corners=True)
        else:
            wide = jnp.repeat(image, 3, axis=1 + thin)
            expected = grid_sample(wide, points, "bilinear", padding, corners)
        np.testing.assert_allclose(out, expected, atol=1e-5)


@TWO_OR_THREE
@pytest.mark.parametrize("empty", ["batch", "points", "channels"])
def test_empty_arrays_give_empty_outputs_and_gradients(sides, empty):
    n, p, c = (0 if empty == name else 2 for name in ("batch", "points", "channels"))
    image, points = jnp.ones((n, *sides, c)), jnp.zeros((n, 3, p, len(sides)))
    out = jax.jit(grid_sample)(image, points)
    assert out.shape == (n, 3, p, c)
    gradients = jax.grad(lambda *both: grid_sample(*both).sum(), (0, 1))(image, points)
    assert [g.shape for g in gradients] == [image.shape, points.shape]
    assert not any(g.any() for g in gradients)


@TWO_OR_THREE
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_dtypes(form, sides, name):
    with jax.enable_x64(name == "float64"):
        image = random_image(2, *sides, 3).astype(name)
        points = (random_image(2, 30, len(sides), seed=1) * 0.7).astype(name)
        out, pull_back = jax.vjp(grid_sample, image, points)
        gradients = pull_back(jnp.ones_like(out))
        assert [a.dtype for a in (out, *gradients)] == [image.dtype] * 3
        expected = grid_sample(*(jnp.asarray(a, jnp.float32) for a in (image, points)))
        tolerance = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-5}[name]
        np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=tolerance)


def test_float64_keeps_its_precision(form):
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 4, 2)))
        points = jnp.array([[[1.3, 2.7]]])
        out = grid_sample(image, points, coordinates="pixels")[0, 0]
        a, b = image[0, 2, 1:3], image[0, 3, 1:3]
        expected = 0.3 * (0.7 * a[0] + 0.3 * a[1]) + 0.7 * (0.7 * b[0] + 0.3 * b[1])
        np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_lists_work():
    theta = [[[1, 0, 0], [0, 1, 0]]]
    grid = affine_grid(theta, [2, 3])
    np.testing.assert_array_equal(grid, affine_grid(jnp.array(theta, jnp.float32), (2, 3)))
    out = grid_sample([[[[1.0], [2.0]]]], [[[0.5, 0.0]]])
    np.testing.assert_allclose(out, [[[2.0]]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(affine_grid, identity(3), (4, 4)), r"\(D, H, W\)"),
        (partial(affine_grid, identity(2), (4, 4, 4)), r"\(H, W\)"),
        (partial(affine_grid, [[1, 0, 0], [0, 1, 0]], (4, 4)), r"\[2, 3\]"),
        (partial(grid_sample, np.ones((1, 2, 2, 2, 1)), np.zeros((1, 2, 3)), "bicubic"), "bicubic"),
        (partial(grid_sample, np.ones((1, 2, 2, 2, 1)), np.zeros((1, 2, 2))), r"\[1, 2, 2, 2, 1\]"),
        (
            partial(grid_sample, np.ones((1, 2, 2, 1)), np.zeros((1, 2)), coordinates="feet"),
            "'feet'",
        ),
    ],
)
def test_errors_name_the_wrong_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_pixels_than_int32_counts_are_refused():
    shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 2**15, 2**15, 1), (2, 3, 2)))
    with pytest.raises(ValueError, match=r"2\*\*31 pixels"):
        jax.eval_shape(grid_sample, *shapes)


@TWO_OR_THREE
def test_batch_may_be_a_symbol_of_an_exported_program(sides):
    (n,) = jax.export.symbolic_shape("n")
    shapes = [(n, *sides, 6), (n, 7, len(sides))]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = jax.export.export(jax.jit(grid_sample))(*arguments)
    image, points = random_image(3, *sides, 6), random_image(3, 7, len(sides), seed=1)
    np.testing.assert_allclose(program.call(image, points), grid_sample(image, points), atol=1e-5)
