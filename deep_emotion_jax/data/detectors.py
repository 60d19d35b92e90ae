"""Face detectors.

A detector is any function from a picture to faces (`Detector`). Its boxes frame faces as FER-2013
does, from forehead to chin and from ear to ear, so that `crop.crop` is the same for all.
"""

import cmath
import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np
from PIL import Image

from deep_emotion_jax.data import yunet
from deep_emotion_jax.data.crop import Box, crop
from deep_emotion_jax.errors import UserError

# The side of FER-2013's frame in units of the geometric mean of the sides of YuNet's box; their
# centres coincide. This is the mean of three estimates on FER-2013's training faces
# (benchmarks/framing.py): 1.08 by the box, 1.10 by the eyes, 1.02 from eyes to mouth.
FRAME_SIDE = 1.06
# Faces that are tilted by fewer degrees are not rotated: it gains nothing.
LEVEL_ABOVE = 10.0
# On the photographs of docs/detector.md every detection above this score is a face.
MIN_SCORE = 0.6
# Boxes with an intersection over union above SAME_FACE are one face. Its box is the mean of those
# above SAME_BOX, which moves less from frame to frame than the best one.
SAME_FACE, SAME_BOX = 0.3, 0.5
# Height and width of the pictures that YuNet is compiled for. It finds faces of about 10 to 500
# pixels in them; larger pictures are shrunk.
CANVASES = ((320, 320), (480, 640), (640, 480), (640, 640))
SIDE = 640
# Sides of the view in which each face is detected again, and of the face's frame in it: landmarks
# of a tilted face are right only if it has 200 pixels or more.
VIEW, FACE_IN_VIEW = 320, 235
# A picture larger than twice the canvas is also searched at twice the size if it has no face, or
# one of fewer pixels than this: there may be smaller ones.
SMALL = 24


@dataclasses.dataclass(frozen=True, eq=False)
class FoundFace:
    """A face in a picture.

    Attributes:
      box: the square to crop, see `crop.crop`.
      score: confidence of the detector, in [0, 1].
      landmarks: [5, 2], x and y in pixels of the picture: right eye (the person's: left in the
        picture), left eye, tip of the nose, right and left corner of the mouth; None if unknown.
      roll: clockwise tilt in degrees, see `crop.crop`; 0 for a face that is nearly upright.
    """

    box: Box
    score: float = 1.0
    landmarks: np.ndarray | None = None
    roll: float = 0.0


class Detector(Protocol):
    """Finds faces in a picture."""

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        """Map a picture, uint8 [H, W, 3] RGB, to its faces, largest first."""
        ...


class Candidates(NamedTuple):
    """YuNet's detections: scores [N], edges of boxes [N, 4], landmarks [N, 5, 2]."""

    scores: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray

    def moved(self, by: float, scale: float = 1) -> "Candidates":
        """Shift right and down by a number of pixels, then scale."""
        return Candidates(self.scores, (self.boxes + by) * scale, (self.landmarks + by) * scale)


def whole_picture(picture: np.ndarray) -> list[FoundFace]:
    """Return the largest central square: the detector for pictures of single faces."""
    height, width, _ = picture.shape
    return [FoundFace(Box.around(width / 2, height / 2, min(height, width)))]


class FaceDetector:
    """YuNet with the packaged weights; finds turned, tilted and small faces.

    A picture is searched at a longer side of at most 640 pixels, and at 1,280 if it is larger and
    has small faces or none. If nothing is found, it is searched again with a border, which finds
    faces that fill the picture. Every face is then detected again in a view of its own, and a
    tilted one once more after it is rotated upright.

    Args:
      min_score: faces with a lower score are left out; in [0, 1].
    """

    def __init__(self, min_score: float = MIN_SCORE):
        self._min_score = min_score

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        """See `Detector`."""
        faces = []
        for face in framed(self._candidates(picture)):
            face = self._refined(picture, face)
            if _levelled(face.roll):
                face = self._refined(picture, face)
            faces.append(face)
        return _finished(faces, picture)

    def _candidates(self, picture: np.ndarray) -> Candidates:
        longer = max(picture.shape[:2])
        found = self._search(picture, SIDE)
        heights = found.boxes[:, 3] - found.boxes[:, 1]
        smallest = heights.min() if heights.size else 0
        if longer > 2 * SIDE and smallest < SMALL * longer / SIDE:
            more = self._search(picture, 2 * SIDE)
            found = Candidates(*map(np.concatenate, zip(found, more, strict=True)))
        if not found.scores.size:
            shrunk, scale = shrink(picture, VIEW * 2 // 3)
            border = max(shrunk.shape) // 4
            padded = np.pad(shrunk, ((border, border), (border, border), (0, 0)), mode="edge")
            found = self._search(padded, VIEW).moved(-border, scale)
        return found

    def _search(self, picture: np.ndarray, longer: int) -> Candidates:
        """Detect faces at a longer side of at most `longer` pixels."""
        shrunk, scale = shrink(picture, longer)
        height, width, _ = shrunk.shape
        factor = max(1, longer // SIDE)
        rows, columns = next(
            (factor * rows, factor * columns)
            for rows, columns in CANVASES
            if height <= factor * rows and width <= factor * columns
        )
        canvas = np.zeros((rows, columns, 3), np.uint8)
        canvas[:height, :width] = shrunk
        return self._run(canvas).moved(0, scale)

    def _refined(self, picture: np.ndarray, face: FoundFace) -> FoundFace:
        """Detect a face again in an upright view in which it has `FACE_IN_VIEW` pixels."""
        view = Box.around(*face.box.centre, face.box.side * VIEW / FACE_IN_VIEW)
        if not view.meets(*picture.shape[:2]):
            return face
        turn = _levelled(face.roll)
        pixels = crop(picture, view, turn, size=VIEW, grey=False)
        seen = [found for found in framed(self._run(pixels)) if _is_central(found.box)]
        if not seen:
            return face
        found = max(seen, key=lambda found: found.score)
        assert found.landmarks is not None
        x, y = view.to_picture(np.array(found.box.centre) / VIEW, turn).tolist()
        return FoundFace(
            Box.around(x, y, found.box.side * view.side / VIEW),
            max(face.score, found.score),
            view.to_picture(found.landmarks / VIEW, turn),
            turn + found.roll,
        )

    def _run(self, canvas: np.ndarray) -> Candidates:
        scores, boxes, landmarks = jax.device_get(_program()(_weights(), canvas[None]))
        kept = scores[0] >= self._min_score
        return Candidates(scores[0][kept], boxes[0][kept], landmarks[0][kept])


class YuNetDetector:
    """A YuNet model file, run by OpenCV.

    Args:
      model: path of the ONNX file, face_detection_yunet_*.onnx of github.com/opencv/opencv_zoo.

    Raises:
      UserError: without OpenCV, or if it cannot read the file.
    """

    def __init__(self, model: str | os.PathLike[str]):
        try:
            import cv2
        except ImportError as error:
            raise UserError(
                '--detector yunet needs OpenCV: pip install ".[yunet]" in the project\'s folder'
            ) from error
        if not os.path.isfile(model):
            raise UserError(f"there is no YuNet model file {os.fspath(model)}")
        try:
            self._network = cv2.FaceDetectorYN.create(
                os.fspath(model), "", (320, 320), score_threshold=MIN_SCORE
            )
        except cv2.error as error:
            raise UserError(f"OpenCV cannot read {os.fspath(model)} as a YuNet model") from error

    def __call__(self, picture: np.ndarray) -> list[FoundFace]:
        """See `Detector`."""
        for longer in (SIDE, SIDE // 2):  # A face that fills 640 pixels may be missed.
            faces = framed(self._search(picture, longer))
            if faces:
                break
        return _finished(faces, picture)

    def _search(self, picture: np.ndarray, longer: int) -> Candidates:
        shrunk, scale = shrink(picture, longer)
        height, width, _ = shrunk.shape
        self._network.setInputSize((width, height))
        _, found = self._network.detect(np.ascontiguousarray(shrunk[..., ::-1]))
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, float)
        corner, size = rows[:, :2], rows[:, 2:4]
        boxes = np.concatenate([corner, corner + size], axis=1)
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        return Candidates(rows[:, 14], boxes, landmarks).moved(0, scale)


@functools.cache
def _program() -> Callable[..., tuple[jax.Array, ...]]:
    return jax.jit(yunet.detect)


@functools.cache
def _weights() -> yunet.Weights:
    return jax.device_put(yunet.weights())


def shrink(picture: np.ndarray, longer: int) -> tuple[np.ndarray, float]:
    """Shrink a picture to a longer side of at most `longer` pixels; return the factor as well."""
    height, width, _ = picture.shape
    scale = max(height, width) / longer
    if scale <= 1:
        return picture, 1.0
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    small = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small), scale


def framed(found: Candidates) -> list[FoundFace]:
    """Merge YuNet's detections to one per face and frame it; small rolls are kept."""
    faces = []
    for score, box, landmarks in zip(*_merged(found), strict=True):
        left, top, right, bottom = box.tolist()
        size = math.sqrt(max(0, right - left) * max(0, bottom - top))
        frame = Box.around((left + right) / 2, (top + bottom) / 2, FRAME_SIDE * size)
        faces.append(FoundFace(frame, float(score), landmarks, _roll(landmarks)))
    return faces


def _roll(landmarks: np.ndarray) -> float:
    """Return the clockwise tilt in degrees, from the eyes and from eyes to mouth equally."""
    right_eye, left_eye, _, right_mouth, left_mouth = landmarks.tolist()
    across = complex(*left_eye) - complex(*right_eye)
    down = (complex(*right_mouth) + complex(*left_mouth)) - complex(*right_eye) - complex(*left_eye)
    return math.degrees(cmath.phase(across + down / 1j))


def _levelled(roll: float) -> float:
    return roll if abs(roll) > LEVEL_ABOVE else 0.0


def _is_central(box: Box) -> bool:
    """Whether a box is that of the face in the middle of the view, not of a neighbour."""
    return max(abs(value - VIEW / 2) for value in box.centre) < FACE_IN_VIEW / 3


def _finished(faces: list[FoundFace], picture: np.ndarray) -> list[FoundFace]:
    """Return the faces within the picture, largest first, with small rolls set to 0."""
    inside = [
        dataclasses.replace(face, roll=_levelled(face.roll))
        for face in faces
        if face.box.meets(*picture.shape[:2])
    ]
    return sorted(inside, key=lambda face: (-face.box.side, face.box))


def _merged(found: Candidates) -> Candidates:
    """Merge overlapping candidates to one per face, their mean weighted by score."""
    scores, boxes, landmarks = (part[np.argsort(-found.scores, kind="stable")] for part in found)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    left = np.ones(len(scores), bool)
    kept = []
    while left.any():
        best = int(left.argmax())
        box = boxes[best]
        overlap = _overlap(box, boxes)
        same = left & (overlap > SAME_BOX)
        same[best] = True
        mean = functools.partial(np.average, axis=0, weights=scores[same] + 1e-9)
        kept.append((scores[best], mean(boxes[same]), mean(landmarks[same])))
        inside = ((box[:2] <= centres) & (centres <= box[2:])).all(axis=1)
        left &= ~(same | inside | (overlap > SAME_FACE))
    return Candidates(*map(np.stack, zip(*kept, strict=True))) if kept else found


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with each of boxes [N, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inside = (high - low).clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return inside / (areas + (box[2:] - box[:2]).prod() - inside).clip(1e-9)
