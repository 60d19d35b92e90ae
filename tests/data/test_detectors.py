"""Framing, cropping and the detectors."""

import sys
import types

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deep_emotion_jax.data.detectors import Box, LbpDetector, YuNetDetector, crop, whole_picture
from deep_emotion_jax.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def lbp():
    return LbpDetector()


def overlap(a, b):
    """Intersection over union."""
    sides = [
        max(0, min(getattr(a, edge) + a.side, getattr(b, edge) + b.side) - max(*pair))
        for edge, pair in (("left", (a.left, b.left)), ("top", (a.top, b.top)))
    ]
    inside = sides[0] * sides[1]
    return inside / (a.side**2 + b.side**2 - inside)


def test_a_grey_face_of_the_networks_size_stays_as_it_is():
    face = np.repeat(noise(48, 48)[..., :1], 3, axis=2)
    (box,) = whole_picture(face)
    np.testing.assert_array_equal(crop(face, box), face[..., 0])


def test_crop_cuts_where_the_box_is():
    picture = np.repeat(noise(90, 120)[..., :1], 3, axis=2)
    np.testing.assert_array_equal(crop(picture, Box(30, 20, 48)), picture[20:68, 30:78, 0])


@settings(max_examples=60, deadline=None)
@given(left=st.integers(-47, 59), top=st.integers(-47, 39))
def test_beyond_the_edge_the_edge_is_repeated(left, top):
    picture = np.repeat(noise(40, 60)[..., :1], 3, axis=2)
    wide = np.pad(picture[..., 0], 50, mode="edge")
    expected = wide[top + 50 : top + 98, left + 50 : left + 98]
    np.testing.assert_array_equal(crop(picture, Box(left, top, 48)), expected)


def test_grey_is_luma():
    for colour, grey in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        picture = np.full((50, 50, 3), colour, np.uint8)
        assert (crop(picture, Box(1, 1, 48)) == grey).all()


def test_shrinking_averages():
    # A chessboard of single pixels is grey from afar; without antialiasing it would be black.
    board = np.indices((480, 480)).sum(0) % 2 * 255
    face = crop(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), Box(0, 0, 480))
    assert abs(face.astype(int) - 127).max() <= 3


@settings(max_examples=100, deadline=None)
@given(*(st.floats(-150, 150) | st.floats() for _ in range(2)), st.floats(0, 150) | st.floats())
def test_any_box_gives_a_face_or_is_refused(left, top, side):
    if 1 <= side <= 120 and -side < left < 60 and -side < top < 40:
        face = crop(noise(40, 60), Box(left, top, side))
        assert face.shape == (48, 48)
        assert face.dtype == np.uint8
    else:
        with pytest.raises(ValueError, match="is no frame"):
            crop(noise(40, 60), Box(left, top, side))


def test_whole_picture_is_the_largest_square_in_the_middle():
    assert whole_picture(noise(40, 60)) == [Box(10, 0, 40)]
    assert whole_picture(noise(61, 40)) == [Box(0, 10.5, 40)]
    assert crop(noise(1, 1), *whole_picture(noise(1, 1))).shape == (48, 48)


# The face in the astronaut's picture, forehead to chin.
ASTRONAUT = Box(172, 66, 104)


def test_the_astronaut_is_found(lbp):
    (box,) = lbp(skimage.data.astronaut())
    assert overlap(box, ASTRONAUT) > 0.8


@pytest.mark.parametrize("scale", [0.7, 1.5, 4])
def test_found_at_any_size_of_picture(lbp, scale):
    picture = Image.fromarray(skimage.data.astronaut())
    side = round(512 * scale)
    boxes = lbp(np.asarray(picture.resize((side, side))))
    assert overlap(boxes[0], Box(*(value * scale for value in ASTRONAUT))) > 0.7


def test_several_faces_largest_first(lbp):
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    picture = Image.new("RGB", (500, 260), "gray")
    picture.paste(face.resize((160, 160)), (20, 60))
    picture.paste(face, (250, 30))
    boxes = lbp(np.asarray(picture))
    assert [box.left > 250 for box in boxes] == [True, False]


def test_no_face_no_box(lbp):
    for picture in (skimage.data.coffee(), noise(200, 200), np.zeros((300, 300, 3), np.uint8)):
        assert lbp(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (31, 31), (32, 32), (5000, 40)])
def test_odd_sizes(lbp, shape):
    assert isinstance(lbp(noise(*shape)), list)


def fake_cv2(found):
    """OpenCV as far as the detector needs it; YuNet's model file is not part of any package."""

    class Network:
        def setInputSize(self, size):  # noqa: N802
            assert size == (60, 40)

        def detect(self, picture):
            assert (picture == noise(40, 60)[..., ::-1]).all()
            return 1, found

    class Error(Exception):
        pass

    def create(path, config, size):
        if path.endswith("bad.onnx"):
            raise Error
        return Network()

    return types.SimpleNamespace(FaceDetectorYN=types.SimpleNamespace(create=create), error=Error)


def test_yunet_boxes_become_frames(monkeypatch, tmp_path):
    model = tmp_path / "yunet.onnx"
    model.touch()
    rows = np.zeros((3, 15), np.float32)
    # Width, height: the frame is as high as the face; the third lies within the second.
    rows[:, :4] = [(40, 5, 10, 12), (10, 10, 20, 24), (15, 15, 8, 8)]
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(rows))
    assert YuNetDetector(model)(noise(40, 60)) == [Box(8, 10, 24), Box(39, 5, 12)]
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(None))
    assert YuNetDetector(model)(noise(40, 60)) == []


def test_yunet_without_opencv_or_model(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(None))
    with pytest.raises(UserError, match="no YuNet model file"):
        YuNetDetector(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").touch()
    with pytest.raises(UserError, match="cannot read"):
        YuNetDetector(tmp_path / "bad.onnx")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"\[video\]"):
        YuNetDetector(tmp_path / "bad.onnx")
