import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax import attribution


def _looks_at(mask, images):
    """Logits of class 1 if every pixel of `mask` [H, W] is brighter than 0.25, else of class 0."""
    seen = jnp.where(mask, images[..., 0], 1.0).min(axis=(1, 2))
    return jnp.stack([jnp.zeros_like(seen), seen - 0.25], axis=-1)


def _constant(weights, images):
    return jnp.broadcast_to(weights, (len(images), len(weights)))


def _linear(weights, images):
    return 3 * jnp.tanh(images.reshape(len(images), -1) @ weights)


def _softmax(logits):
    exponentials = np.exp(np.asarray(logits, np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _slow(logits_fn, weights, images, labels, window, stride, fill, mode):
    """The definition, computed one window at a time."""
    N, H, W, _ = images.shape
    tops = sorted({*range(0, H - window + 1, stride), H - window})
    lefts = sorted({*range(0, W - window + 1, stride), W - window})
    total, cover = np.zeros((N, H, W)), np.zeros((H, W))
    before = np.asarray(logits_fn(weights, images))
    for top, left in itertools.product(tops, lefts):
        occluded = images.copy()
        occluded[:, top : top + window, left : left + window] = fill
        after = np.asarray(logits_fn(weights, occluded))
        cover[top : top + window, left : left + window] += 1
        for n, label in enumerate(labels):
            if mode == "flip":
                score = before[n].argmax() == label and after[n].argmax() != label
            else:
                score = max(0, _softmax(before[n])[label] - _softmax(after[n])[label])
            total[n, top : top + window, left : left + window] += score
    return total / cover


@pytest.mark.parametrize("mode", ["flip", "drop"])
@pytest.mark.parametrize(
    ("shape", "window", "stride", "fill"),
    [
        ((3, 12, 12, 1), 4, 2, 0.0),
        ((4, 13, 10, 3), 4, 3, 1.0),  # The last windows are flush with the edges.
        ((5, 9, 9, 1), 3, 1, 0.0),  # 250 window positions: several chunks, the last one partial.
        ((1, 6, 6, 1), 6, 6, 1.0),
    ],
)
def test_equals_the_definition(shape, window, stride, fill, mode):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=shape).astype(np.float32)
    weights = rng.normal(size=(np.prod(shape[1:]), 4)).astype(np.float32) / 8
    # The last of several images has a label that the network does not predict.
    labels = np.asarray(_linear(weights, images)).argmax(-1)
    labels[1:][-1:] = (labels[1:][-1:] + 1) % 4
    maps = attribution.occlusion_maps(_linear, weights, images, labels, window, stride, fill, mode)
    chex.assert_shape(maps, shape[:3])
    assert maps.dtype == np.float32
    slow = _slow(_linear, weights, images, labels, window, stride, fill, mode)
    assert slow.max() > 0
    np.testing.assert_allclose(maps, slow, atol=1e-6)


@pytest.mark.parametrize("mode", ["flip", "drop"])
@pytest.mark.parametrize(("y", "x"), [(10, 21), (0, 0), (22, 22)])
def test_a_decisive_pixel_marks_exactly_the_windows_that_cover_it(y, x, mode):
    mask = np.zeros((23, 23), bool)
    mask[y, x] = True
    window, stride = 8, 4
    images = np.ones((1, 23, 23, 1), np.float32)
    (found,) = attribution.occlusion_maps(
        _looks_at, mask, images, np.array([1]), window, stride, mode=mode
    )
    starts = [0, 4, 8, 12, 15]  # 15 and not 16: flush with the edge.
    expected = np.zeros((23, 23), bool)
    for top, left in itertools.product(starts, starts):
        if top <= y < top + window and left <= x < left + window:
            expected[top : top + window, left : left + window] = True
    np.testing.assert_array_equal(found > 0, expected)
    if mode == "flip":  # Every window over the pixel flips, and no other: exactly 1 there.
        assert found[y, x] == 1
        assert found.max() == 1
    else:
        p, q = 1 / (1 + np.exp(-0.75)), 1 / (1 + np.exp(0.25))
        assert found[y, x] == pytest.approx(p - q, rel=1e-5)


def test_a_decisive_patch_is_found():
    mask = np.zeros((48, 48), bool)
    mask[30:40, 14:34] = True
    images = np.ones((1, 48, 48, 1), np.float32)
    maps = attribution.occlusion_maps(_looks_at, mask, images, np.array([1]))
    assert attribution.mass_inside(maps, mask)[0] > 4 * mask.mean()
    # All windows over rows 28-39 and columns 12-35 touch the patch: a plateau of 12 x 24 pixels, of
    # which the patch holds 10 x 20.
    np.testing.assert_array_equal(
        maps[0] == 1, np.pad(np.ones((12, 24), bool), ((28, 8), (12, 12)))
    )
    assert attribution.pointing_hit(maps, mask)[0] == pytest.approx(200 / 288)


@pytest.mark.parametrize("mode", ["flip", "drop"])
def test_a_network_that_ignores_the_image_gives_zero(mode):
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 1)).astype(np.float32)
    maps = attribution.occlusion_maps(
        _constant, np.array([0.3, 1.0]), images, np.array([1, 0]), mode=mode
    )
    np.testing.assert_array_equal(maps, 0)


def test_all_windows_flipping_gives_exactly_one_everywhere():
    images = np.ones((1, 23, 23, 1), np.float32)
    mask = np.ones((23, 23), bool)
    maps = attribution.occlusion_maps(_looks_at, mask, images, np.array([1]), window=7, stride=1)
    np.testing.assert_array_equal(maps, 1)


def test_hidden_pixels_have_the_value_of_fill():
    mask = np.ones((16, 16), bool)
    images = np.ones((1, 16, 16, 1), np.float32)
    maps = attribution.occlusion_maps(_looks_at, mask, images, np.array([1]), fill=0.5)
    np.testing.assert_array_equal(maps, 0)  # 0.5 is still brighter than 0.25.


def test_fill_may_differ_between_images():
    rng = np.random.default_rng(3)
    images, fill = rng.uniform(size=(2, 3, 10, 10, 1)).astype(np.float32)
    weights = rng.normal(size=(100, 3)).astype(np.float32)
    labels = np.asarray(_linear(weights, images)).argmax(-1)
    maps = attribution.occlusion_maps(_linear, weights, images, labels, 4, 2, fill, "drop")
    for n in range(3):
        # A black window with a network that adds the fill equals a filled window.
        def shifted(weights, x, fill=fill[n]):
            return _linear(weights, x + fill)

        (alone,) = attribution.occlusion_maps(
            shifted, weights, images[n : n + 1] - fill[n], labels[n : n + 1], 4, 2, 0.0, "drop"
        )
        np.testing.assert_allclose(maps[n], alone, atol=1e-6)
    assert maps.max() > 0


def test_blurred_keeps_the_mean_and_removes_detail():
    images = np.random.default_rng(4).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    images[1] += 5
    blurred = attribution.blurred(images)
    np.testing.assert_allclose(blurred.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=0.02)
    assert (blurred.std((1, 2, 3)) < 0.3 * images.std((1, 2, 3))).all()


def test_integrated_gradients_sum_to_the_gain_in_log_probability():
    """Completeness: the maps sum to the difference between the ends of the path."""
    rng = np.random.default_rng(5)
    images = rng.uniform(size=(3, 16, 16, 1)).astype(np.float32)
    start = attribution.blurred(images)
    labels = np.array([0, 1, 1])

    def logits_fn(weights, x):
        total = (x * weights).sum((1, 2, 3))
        return jnp.stack([-total, total], axis=-1)

    # Every pixel's detail supports class 1 in image 1; half of the pixels have no weight.
    weights = 0.02 * np.sign(images[1] - start[1]) * (np.arange(16) < 8)[:, None, None]
    maps = attribution.gradient_maps(logits_fn, weights, images, labels, steps=32)
    chex.assert_shape(maps, (3, 16, 16))
    ends = [np.log(_softmax(logits_fn(weights, x[1:2])))[0, 1] for x in (start, images)]
    assert ends[1] - ends[0] > 0.1
    assert maps[1].sum() == pytest.approx(ends[1] - ends[0], rel=1e-2)
    np.testing.assert_array_equal(maps[:, 8:], 0)
    for n, sign in ((0, -1), (2, 1)):  # Negative shares are zero.
        supports = (sign * weights * (images[n] - start[n]))[..., 0] > 0
        np.testing.assert_array_equal(maps[n] > 0, supports)


def test_a_misclassified_image_has_a_zero_flip_map():
    mask = np.zeros((16, 16), bool)
    mask[5, 5] = True
    images = np.zeros((1, 16, 16, 1), np.float32)
    maps = attribution.occlusion_maps(_looks_at, mask, images, np.array([1]), fill=1.0)
    np.testing.assert_array_equal(maps, 0)


def test_images_do_not_influence_each_other():
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(7, 10, 10, 1)).astype(np.float32)
    weights = rng.normal(size=(100, 3)).astype(np.float32)
    labels = np.asarray(_linear(weights, images)).argmax(-1)
    together = attribution.occlusion_maps(_linear, weights, images, labels, 4, 2)
    alone = [
        attribution.occlusion_maps(_linear, weights, images[n : n + 1], labels[n : n + 1], 4, 2)[0]
        for n in range(7)
    ]
    np.testing.assert_array_equal(together, alone)


def test_new_weights_and_images_do_not_recompile():
    traces = []

    def logits_fn(weights, images):
        traces.append(images.shape)
        return _linear(weights, images)

    rng = np.random.default_rng(2)
    for _ in range(3):
        images = rng.uniform(size=(2, 8, 8, 1)).astype(np.float32)
        weights = rng.normal(size=(64, 2)).astype(np.float32)
        attribution.occlusion_maps(logits_fn, weights, images, np.array([0, 1]), 4, 2)
        attribution.occlusion_maps(logits_fn, weights, images, np.array([1, 1]), 4, 2, fill=0.3)
    assert len(traces) == 1


def test_weights_may_be_any_pytree_and_labels_jax_arrays():
    def logits_fn(weights, images):
        return _linear(weights["dense"]["kernel"], images)

    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    weights = {"dense": {"kernel": jnp.ones((64, 2))}}
    maps = attribution.occlusion_maps(logits_fn, weights, images, jnp.array([0, 0]))
    chex.assert_shape(maps, (2, 8, 8))


def test_no_images_give_no_maps():
    empty = np.zeros((0, 16, 16, 1), np.float32)
    maps = attribution.occlusion_maps(_constant, np.zeros(2), empty, np.zeros(0, int))
    chex.assert_shape(maps, (0, 16, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 16, 16), np.float32)}, "float images"),
        ({"images": np.zeros((2, 16, 16, 1), np.uint8)}, "float images"),
        ({"labels": np.zeros(3, int)}, "2 integer labels"),
        ({"labels": np.zeros(2)}, "2 integer labels"),
        ({"window": 17}, "does not fit"),
        ({"window": 0}, "does not fit"),
        ({"stride": 0}, "stride of 0"),
        ({"stride": 9}, "leaves gaps"),
        ({"mode": "both"}, "'both'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    arguments = {"images": np.zeros((2, 16, 16, 1), np.float32), "labels": np.zeros(2, int)}
    with pytest.raises(ValueError, match=message):
        attribution.occlusion_maps(_constant, np.zeros(2), **(arguments | change))


@pytest.mark.parametrize("mode", ["flip", "drop"])
def test_wrong_data_is_refused(mode):
    images = np.ones((2, 16, 16, 1), np.float32)
    weights = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="label 2 is not a class"):
        attribution.occlusion_maps(_constant, weights, images, np.array([1, 2]), mode=mode)
    with pytest.raises(ValueError, match="Label -1 is negative"):
        attribution.occlusion_maps(_constant, weights, images, np.array([1, -1]), mode=mode)
    with pytest.raises(ValueError, match="not finite"):
        attribution.occlusion_maps(_constant, weights * np.nan, images, np.array([1, 1]), mode=mode)


def test_average_by_class():
    maps = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 2, 3), np.float32)
    labels = np.array([0, 0, 2, 2, 2])
    means = attribution.average_by_class(maps, labels, 3)
    chex.assert_shape(means, (3, 2, 3))
    np.testing.assert_array_equal(means[:, 0, 0], [0.5, np.nan, 3])
    kept = attribution.average_by_class(maps, labels, 3, keep=np.array([0, 0, 1, 0, 1], bool))
    np.testing.assert_array_equal(kept[:, 1, 2], [np.nan, np.nan, 3])


def test_mass_inside():
    maps = np.array([[[1, 3], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]], np.float32)
    mask = np.array([[True, False], [True, False]])
    np.testing.assert_array_equal(attribution.mass_inside(maps, mask), [0.25, np.nan, 0.5])
    np.testing.assert_array_equal(
        attribution.mass_inside(maps[0], np.stack([mask, ~mask])), [0.25, 0.75]
    )


def test_pointing_hit():
    mask = np.array([[True, False], [True, False]])
    maps = np.array(
        [
            [[5, 1], [1, 1]],  # The maximum is inside.
            [[1, 5], [1, 1]],  # Outside.
            [[5, 5], [5, 1]],  # Two of three inside.
            [[0, 0], [0, 0]],  # Constant: the region's share of the image.
        ]
    )
    np.testing.assert_allclose(attribution.pointing_hit(maps, mask), [1, 0, 2 / 3, 0.5])
    np.testing.assert_array_equal(attribution.pointing_hit(maps[0], ~mask), 0)
