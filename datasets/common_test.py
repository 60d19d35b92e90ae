from pathlib import Path

import numpy as np
import pytest

from datasets.common import Square, check_totals, face_image
from deep_emotion_jax.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)


def test_a_grey_48_x_48_picture_is_unchanged():
    np.testing.assert_array_equal(face_image(NOISE), NOISE)
    np.testing.assert_array_equal(face_image(np.stack([NOISE] * 3, -1)), NOISE)


def test_the_default_square_is_central():
    wide = np.pad(NOISE, ((0, 0), (7, 7)))
    np.testing.assert_array_equal(face_image(wide), NOISE)
    np.testing.assert_array_equal(face_image(wide.T), NOISE.T)


def test_a_given_square_is_cropped():
    picture = np.zeros((100, 200), np.uint8)
    picture[31:79, 120:168] = NOISE
    np.testing.assert_array_equal(face_image(picture, Square(120, 31, 48)), NOISE)


def test_shrinking_averages_all_pixels():
    # A checkerboard of single pixels: a filter that skips pixels does not give its mean.
    board = np.indices((480, 480)).sum(0) % 2 * 255
    face = face_image(board.astype(np.uint8))
    assert abs(face.astype(int) - 127.5).max() < 3


def test_a_ramp_stays_a_ramp_at_any_place_and_scale():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    square = Square(30.25, 11.5, 120)
    # Pixel i of the face covers 2.5 pixels of the picture, whose first centre is at 0.5.
    expected = square.left + (np.arange(48) + 0.5) * square.side / 48 - 0.5
    assert abs(face_image(ramp, square)[1:-1, 1:-1] - expected[1:-1]).max() <= 1


def test_beyond_the_edge_the_edge_is_repeated():
    picture = np.full((60, 60), 9, np.uint8)
    picture[:, -1] = 200
    face = face_image(picture, Square(36, -10, 48))
    np.testing.assert_array_equal(face[0], [9] * 23 + [200] * 25)
    np.testing.assert_array_equal(face, np.broadcast_to(face[:1], face.shape))


def test_transparent_pixels_show_the_background():
    picture = np.zeros((48, 48, 4), np.uint8)
    picture[..., :3] = 255  # White that must not be visible.
    picture[10:20, 10:20] = (10, 10, 10, 255)
    picture[30:40, 30:40] = (10, 10, 10, 128)
    face = face_image(picture)
    assert face[0, 0] == 128
    assert face[15, 15] == 10
    assert abs(int(face[35, 35]) - (10 + 128) / 2) <= 1
    assert face_image(picture, background=0)[0, 0] == 0


def test_colour_is_luma():
    pixels = np.zeros((48, 48, 3), np.uint8)
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        picture = pixels.copy()
        picture[..., channel] = 200
        assert abs(int(face_image(picture)[0, 0]) - 200 * weight) <= 1


def test_totals():
    check_totals(Path("raw"), {"images": 3, "subjects": 2}, {"images": 3, "subjects": 2})
    with pytest.raises(UserError, match="raw has 2 subjects, not 1; it is incomplete"):
        check_totals(Path("raw"), {"images": 3, "subjects": 2}, {"images": 3, "subjects": 1})
