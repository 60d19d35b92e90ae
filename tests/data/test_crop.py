"""Cropping a picture to 48 x 48."""

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deep_emotion_jax.data.crop import Box, crop
from deep_emotion_jax.data.detectors import whole_picture


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_grey_face_of_the_networks_size_is_unchanged():
    face = np.repeat(noise(48, 48)[..., :1], 3, axis=2)
    (found,) = whole_picture(face)
    np.testing.assert_array_equal(crop(face, found.box), face[..., 0])


def test_crop_returns_the_pixels_of_the_box():
    picture = np.repeat(noise(90, 120)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(crop(picture, Box(30, 20, 48)), picture[20:68, 30:78, 0])


@settings(max_examples=60, deadline=None)
@given(left=st.integers(-47, 59), top=st.integers(-47, 39))
def test_the_edge_is_repeated_beyond_the_picture(left, top):
    picture = np.repeat(noise(40, 60)[..., :1], 3, axis=2)
    wide = np.pad(picture[..., 0], 50, mode="edge")
    expected = wide[top + 50 : top + 98, left + 50 : left + 98]
    np.testing.assert_array_equal(crop(picture, Box(left, top, 48)), expected)


def test_grey_is_luma():
    for colour, grey in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        picture = np.full((50, 50, 3), colour, np.uint8)
        assert (crop(picture, Box(1, 1, 48)) == grey).all()


def test_shrinking_averages():
    # A chessboard of single pixels averages to grey; without antialiasing it would be black.
    board = np.indices((480, 480)).sum(0) % 2 * 255
    face = crop(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), Box(0, 0, 480))
    assert abs(face.astype(int) - 127).max() <= 3


@settings(max_examples=100, deadline=None)
@given(*(st.floats(-150, 150) | st.floats() for _ in range(2)), st.floats(0, 150) | st.floats())
def test_any_box_gives_a_face_or_an_error(left, top, side):
    if 1 <= side <= 120 and -side < left < 60 and -side < top < 40:
        ramp = np.tile(np.arange(100, 160, dtype=np.uint8), (40, 1))
        face = crop(ramp, Box(left, top, side))
        assert face.shape == (48, 48)
        assert face.dtype == np.uint8
        # The ramp at the middle of each column; the filter bends it at the edges.
        middles = left + (np.arange(48) + 0.5) * side / 48
        expected = 100 + np.clip(middles - 0.5, 0, 59)
        assert abs(face - expected).max() <= 1 + side / 48
    else:
        with pytest.raises(ValueError, match="cannot crop"):
            crop(noise(40, 60), Box(left, top, side))


def test_a_picture_of_one_pixel():
    picture = np.full((1, 1, 3), 77, np.uint8)
    (found,) = whole_picture(picture)
    np.testing.assert_array_equal(crop(picture, found.box), np.full((48, 48), 77))


def test_grey_pictures_are_cropped_like_colour_ones():
    grey = noise(60, 80)[..., 0]
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        crop(grey, Box(3.5, -2.25, 50)), crop(colour, Box(3.5, -2.25, 50))
    )


def test_crop_is_a_triangle_filter_over_the_whole_picture():
    """Every pixel is a triangle-weighted mean, which includes pixels outside the box."""
    picture = noise(200, 220)[..., 0]
    left, top, side = box = Box(30.3, 41.7, 120.9)
    scale = side / 48

    def weights(start, length):
        centres = start + (np.arange(48) + 0.5) * scale
        distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / scale
        triangle = np.clip(1 - distance, 0, None)
        return triangle / triangle.sum(axis=1, keepdims=True)

    expected = weights(top, 200) @ picture @ weights(left, 220).T
    assert np.abs(crop(picture, box) - expected).max() <= 1.5


@pytest.mark.parametrize("roll", [-75.0, -20.0, 12.0, 90.0])
def test_a_tilted_face_is_rotated_upright(roll):
    """Cropping a picture that Pillow has rotated, with that roll, gives the original crop."""
    picture, box = skimage.data.astronaut(), Box(172, 66, 104)
    leaning = Image.fromarray(picture).rotate(-roll, Image.Resampling.BICUBIC, center=box.centre)
    difference = np.abs(crop(np.asarray(leaning), box, roll) - crop(picture, box).astype(float))
    assert difference.mean() < 2
    wrong = np.abs(crop(np.asarray(leaning), box, -roll) - crop(picture, box).astype(float))
    assert wrong.mean() > 20 or roll == 90


@pytest.mark.parametrize("roll", [0.0, 30.0, -100.0])
def test_points_are_mapped_between_crop_and_picture(roll):
    picture, box = np.zeros((200, 200), np.uint8), Box(50, 60, 96)
    place = np.array([0.6, 0.3])
    x, y = box.to_picture(place, roll)
    picture[round(y) - 2 : round(y) + 2, round(x) - 2 : round(x) + 2] = 255
    row, column = np.unravel_index(crop(picture, box, roll).argmax(), (48, 48))
    assert (column + 0.5) / 48 == pytest.approx(0.6, abs=0.03)
    assert (row + 0.5) / 48 == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(box.to_cut(np.array([x, y]), roll), place)
