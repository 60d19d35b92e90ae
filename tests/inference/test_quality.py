"""Notes on faces whose prediction may be wrong."""

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter

from deep_emotion_jax.data.crop import Box, crop
from deep_emotion_jax.data.detectors import FaceDetector
from deep_emotion_jax.inference.quality import notes, turn


@pytest.fixture(scope="module")
def face():
    """The astronaut's face: box, landmarks and picture."""
    picture = skimage.data.astronaut()
    (found,) = FaceDetector()(picture)
    return found.box, found.landmarks, picture


def test_a_good_face_has_no_notes(face):
    box, landmarks, picture = face
    assert notes(crop(picture, box), box, landmarks) == ()


def test_small_faces_are_marked(face):
    box, landmarks, picture = face
    assert "small" in notes(crop(picture, box), Box(0, 0, 20), landmarks)


@pytest.mark.parametrize(("radius", "expected"), [(0.5, False), (4, True), (9, True)])
def test_blurred_faces_are_marked(face, radius, expected):
    box, landmarks, picture = face
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))
    assert ("blurred" in notes(crop(soft, box), box, landmarks)) == expected


@pytest.mark.parametrize("lowest", [0, 200])
def test_faces_without_contrast_are_marked(face, lowest):
    """Dark and bright images of low contrast."""
    box, landmarks, picture = face
    flat = (lowest + picture * 0.1).astype(np.uint8)
    assert "dark" in notes(crop(flat, box), box, landmarks)


@pytest.mark.parametrize("angle", [0, 30, 100])
def test_a_turned_head_is_marked_as_profile(angle):
    """Five points of a head, rotated about its vertical axis, then rolled by any angle."""
    head = np.array([(-1, 0, 0.3), (1, 0, 0.3), (0, 1, 1.2), (-0.8, 2, 0.4), (0.8, 2, 0.4)])
    lean = np.radians(angle)
    seen = []
    for degrees in (-60, -20, 0, 20, 60):
        yaw = np.radians(degrees)
        x = head[:, 0] * np.cos(yaw) + head[:, 2] * np.sin(yaw)
        y = head[:, 1]
        points = np.stack(
            [x * np.cos(lean) - y * np.sin(lean), x * np.sin(lean) + y * np.cos(lean)], axis=1
        )
        seen.append(turn(50 * points + 200))
        marks = notes(np.eye(48, dtype=np.uint8) * 255, Box(0, 0, 99), points)
        assert ("profile" in marks) == (abs(degrees) == 60)
    np.testing.assert_allclose(seen, -np.array(seen)[::-1], atol=1e-9)
    assert sorted(seen) == seen
