"""Test-time views: their number and content, and the mean over them."""

import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.evaluation.views import SHIFTS, predict_views, views
from deep_emotion_jax.nn.model import DeepEmotion

FACES = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("choice", "count"), {"none": 1, "mirror": 2, "shifts": 5, "ten": 10}.items()
)
def test_number_and_shape(choice, count):
    found = list(views(FACES, choice))
    assert len(found) == count
    assert {view.shape for view in found} == {FACES.shape}
    np.testing.assert_array_equal(found[0], FACES)


def test_shifts_move_the_face_and_repeat_the_edge():
    for (down, right), view in zip(SHIFTS, views(FACES, "shifts"), strict=True):
        rows = np.clip(np.arange(48) - down, 0, 47)
        columns = np.clip(np.arange(48) - right, 0, 47)
        np.testing.assert_array_equal(view, FACES[:, rows][:, :, columns])


def test_mirror_and_ten_include_the_mirrored_faces():
    np.testing.assert_array_equal(list(views(FACES, "mirror"))[1], FACES[:, :, ::-1])
    shifted = list(views(FACES, "shifts"))
    ten = list(views(FACES, "ten"))
    for i, view in enumerate(shifted):
        np.testing.assert_array_equal(ten[2 * i], view)
        np.testing.assert_array_equal(ten[2 * i + 1], view[:, :, ::-1])


def test_prediction_is_the_mean_of_the_views_probabilities():
    model = DeepEmotion(rngs=nnx.Rngs(0))

    def probabilities(images):
        logits = np.asarray(model(images.astype(np.float32) / 255), np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    expected = (probabilities(FACES) + probabilities(FACES[:, :, ::-1])) / 2
    np.testing.assert_allclose(np.exp(predict_views(model, FACES, "mirror")), expected, rtol=1e-4)


def test_unknown_choice():
    with pytest.raises(ValueError, match="'eleven'"):
        next(views(FACES, "eleven"))
