"""Face detection: YuNet in JAX against ONNX Runtime, and the detectors that use it."""

import sys
import types

import jax
import numpy as np
import pytest
import skimage.data
from commands import GOLDEN_FILES
from PIL import Image

from deep_emotion_jax.data import yunet
from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.data.detectors import (
    FRAME_SIDE,
    FaceDetector,
    YuNetDetector,
    whole_picture,
)
from deep_emotion_jax.errors import UserError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


def overlap(a, b):
    """Intersection over union."""
    sides = [
        max(0, min(getattr(a, edge) + a.side, getattr(b, edge) + b.side) - max(*pair))
        for edge, pair in (("left", (a.left, b.left)), ("top", (a.top, b.top)))
    ]
    inside = sides[0] * sides[1]
    return inside / (a.side**2 + b.side**2 - inside)


@pytest.fixture(scope="module")
def found():
    """Scores, boxes and landmarks for the astronaut in the upper left corner of 640 x 640."""
    picture = np.zeros((1, 640, 640, 3), np.uint8)
    picture[0, :512, :512] = skimage.data.astronaut()
    return [np.asarray(part)[0] for part in jax.jit(yunet.detect)(yunet.weights(), picture)]


@pytest.mark.parametrize("stride", yunet.STRIDES)
def test_yunet_matches_onnx_runtime(found, stride):
    """The golden file holds the raw output; the test decodes it as OpenCV does."""
    scores, boxes, landmarks = found
    first = sum((640 // smaller) ** 2 for smaller in yunet.STRIDES if smaller < stride)
    with np.load(GOLDEN_FILES / "yunet.npz") as golden:
        places, score, box, points = (
            golden[f"{name}_{stride}"] for name in ("places", "scores", "boxes", "landmarks")
        )
    np.testing.assert_allclose(scores[first + places], score, atol=1e-4)
    for place, raw, five in zip(places, box, points, strict=True):
        row, column = divmod(int(place), 640 // stride)
        x, y = (column + raw[0]) * stride, (row + raw[1]) * stride
        width, height = np.exp(raw[2:]) * stride
        want = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        np.testing.assert_allclose(boxes[first + place], want, rtol=1e-3, atol=0.02)
        want = [[(column + a) * stride, (row + b) * stride] for a, b in five.reshape(5, 2)]
        np.testing.assert_allclose(landmarks[first + place], want, rtol=1e-3, atol=0.02)


def test_yunet_accepts_a_batch(found):
    picture = np.zeros((2, 160, 96, 3), np.uint8)
    picture[0, :128, :96] = skimage.data.astronaut()[40:168, 170:266]
    both = jax.jit(yunet.detect)(yunet.weights(), picture)
    alone = jax.jit(yunet.detect)(yunet.weights(), picture[:1])
    for two, one in zip(both, alone, strict=True):
        assert two.shape[:2] == (2, 20 * 12 + 10 * 6 + 5 * 3)
        np.testing.assert_allclose(two[:1], one, rtol=1e-4, atol=1e-2)


# The face in the astronaut's picture, forehead to chin.
ASTRONAUT = Box(172, 66, 104)


def test_the_astronaut_is_found(detector):
    (face,) = detector(skimage.data.astronaut())
    assert overlap(face.box, ASTRONAUT) > 0.8
    assert face.score > 0.9
    right, left, nose, *mouth = face.landmarks
    assert right[0] < nose[0] < left[0]
    assert max(right[1], left[1]) < nose[1] < min(corner[1] for corner in mouth)


@pytest.mark.parametrize("scale", [0.7, 1.5, 4])
def test_a_face_is_found_at_any_picture_size(detector, scale):
    picture = Image.fromarray(skimage.data.astronaut())
    side = round(512 * scale)
    faces = detector(np.asarray(picture.resize((side, side))))
    assert overlap(faces[0].box, Box(*(value * scale for value in ASTRONAUT))) > 0.7


def test_faces_are_ordered_by_size(detector):
    face = Image.fromarray(skimage.data.astronaut()[20:220, 120:320])
    picture = Image.new("RGB", (500, 260), "gray")
    picture.paste(face.resize((160, 160)), (20, 60))
    picture.paste(face, (250, 30))
    faces = detector(np.asarray(picture))
    assert [face.box.left > 250 for face in faces] == [True, False]


def test_pictures_without_faces_give_no_boxes(detector):
    for picture in (skimage.data.coffee(), noise(200, 200), np.zeros((300, 300, 3), np.uint8)):
        assert detector(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (31, 31), (32, 32), (5000, 40)])
def test_odd_sizes(detector, shape):
    assert isinstance(detector(noise(*shape)), list)


@pytest.mark.parametrize("angle", [-30, -20, 20, 40])
def test_turned_faces_are_found_and_levelled(detector, angle):
    turned = Image.fromarray(skimage.data.astronaut()).rotate(angle, Image.Resampling.BICUBIC)
    (face,) = detector(np.asarray(turned))
    # Her head is tilted by about four degrees in the original.
    assert face.roll == pytest.approx(4 - angle, abs=5)


def test_an_upright_face_has_no_roll(detector):
    (face,) = detector(skimage.data.astronaut())
    assert face.roll == 0


def test_a_small_face_in_a_large_picture(detector):
    """The face is ten pixels wide at 640 pixels; it is found at 1,280."""
    picture = np.full((2560, 2560, 3), 120, np.uint8)
    face = Image.fromarray(skimage.data.astronaut()[:300, 80:380]).resize((120, 120))
    picture[1500:1620, 2000:2120] = face
    (found,) = detector(picture)
    assert overlap(found.box, Box(2036.8, 1526.4, 41.6)) > 0.6


@pytest.mark.parametrize("size", [48, 200, 900])
def test_a_face_that_fills_the_picture(detector, size):
    face = Image.fromarray(skimage.data.astronaut()[66:170, 172:276]).resize((size, size))
    (found,) = detector(np.asarray(face))
    assert overlap(found.box, Box(0, 0, size)) > 0.6


def test_the_box_is_stable_when_the_picture_is_cropped(detector):
    """The mean of the overlapping detections moves less than the best one."""
    (face,) = detector(skimage.data.astronaut())
    for pixels in range(1, 9):
        (again,) = detector(skimage.data.astronaut()[pixels:, pixels:])
        left, top, side = again.box
        assert overlap(face.box, Box(left + pixels, top + pixels, side)) > 0.95


def fake_cv2(found):
    """A stand-in for the parts of OpenCV in use; YuNet's model file is in no package."""

    class Network:
        def setInputSize(self, size):  # noqa: N802
            assert size == (60, 40)

        def detect(self, picture):
            assert (picture == noise(40, 60)[..., ::-1]).all()
            return 1, found

    class Error(Exception):
        pass

    def create(path, config, size, score_threshold):
        if path.endswith("bad.onnx"):
            raise Error
        return Network()

    return types.SimpleNamespace(FaceDetectorYN=types.SimpleNamespace(create=create), error=Error)


def test_opencvs_boxes_become_frames(monkeypatch, tmp_path):
    model = tmp_path / "yunet.onnx"
    model.touch()
    rows = np.zeros((3, 15), np.float32)
    # Left, top, width, height; the third is inside the second.
    rows[:, :4] = [(40, 5, 10, 12), (10, 10, 20, 24), (15, 15, 8, 8)]
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(rows))
    boxes = [face.box for face in YuNetDetector(model)(noise(40, 60))]
    sides = [FRAME_SIDE * (w * h) ** 0.5 for w, h in ((20, 24), (10, 12))]
    expected = [Box.around(20, 22, sides[0]), Box.around(45, 11, sides[1])]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(None))
    assert YuNetDetector(model)(noise(40, 60)) == []


def test_errors_without_opencv_and_for_a_bad_file(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", fake_cv2(None))
    with pytest.raises(UserError, match="no YuNet model file"):
        YuNetDetector(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").touch()
    with pytest.raises(UserError, match="cannot read"):
        YuNetDetector(tmp_path / "bad.onnx")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"\[yunet\]"):
        YuNetDetector(tmp_path / "bad.onnx")


def test_opencv_gets_shrunk_pictures(monkeypatch, tmp_path):
    """YuNet misses faces of more than 300 to 500 pixels, so large pictures are shrunk."""
    asked = []

    class Network:
        def setInputSize(self, size):  # noqa: N802
            asked.append(size)

        def detect(self, picture):
            height, width = picture.shape[:2]
            side = 0.6 * height
            if side > 300:
                return 0, None
            row = np.zeros((1, 15), np.float32)
            row[0, :4] = (width - side) / 2, (height - side) / 2, side, side
            row[0, 14] = 0.9
            return 1, row

    cv2 = fake_cv2(None)
    cv2.FaceDetectorYN.create = lambda *_, **__: Network()
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    (tmp_path / "yunet.onnx").touch()
    detector = YuNetDetector(tmp_path / "yunet.onnx")
    for height, width in ((400, 600), (1200, 1000), (4600, 3061)):
        (face,) = detector(np.zeros((height, width, 3), np.uint8))
        assert face.box.side == pytest.approx(0.6 * height * FRAME_SIDE, rel=0.01)
        assert max(asked[-1]) <= 640


def test_whole_picture_is_the_largest_square_in_the_middle():
    assert [face.box for face in whole_picture(noise(40, 60))] == [Box(10, 0, 40)]
    assert [face.box for face in whole_picture(noise(61, 40))] == [Box(0, 10.5, 40)]
