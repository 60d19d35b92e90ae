"""Where the faces are, and how they are cut out: framed as in the training pictures.

A detector is any function from a picture to boxes (`Detector`). Its boxes are already framed as
FER-2013 frames its faces, forehead to chin and ear to ear, so that `crop` is the same for all.
"""

import os
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import IMAGE_SIZE

# The side of FER-2013's frame in units of the cascade's box: the median over the boxes found in
# 300 training faces, set into a wider picture, was 0.94 of the frame's side, at its centre.
LBP_FRAME = 1 / 0.94
# The cascade's time grows with the pixels and with the number of sizes it looks for; with these it
# takes about 0.2 s for a picture of any size.
LBP_PICTURE_SIDE = 512
LBP_SMALLEST = 32


class Box(NamedTuple):
    """A square in a picture, in pixels from its left and top edges; it may reach beyond them."""

    left: float
    top: float
    side: float


class Detector(Protocol):
    """Finds faces in a picture."""

    def __call__(self, picture: np.ndarray) -> list[Box]:
        """Maps a picture, uint8 [H, W, 3] RGB, to the frames of its faces, largest first."""
        ...


def crop(picture: np.ndarray, box: Box) -> np.ndarray:
    """Cuts out a face the way the network was trained to see it.

    Grey (ITU-R 601 luma), resampled with an antialiasing triangle filter; what lies beyond the
    picture repeats its edge. A grey picture of 48 x 48 in its own frame comes out unchanged.

    Args:
      picture: uint8 [H, W, 3] RGB.
      box: the frame.

    Returns:
      uint8 [48, 48].

    Raises:
      ValueError: if the box is not finite, is smaller than a pixel, does not meet the picture or
        is more than twice as large.
    """
    height, width, _ = picture.shape
    left, top, side = box
    if not (1 <= side <= 2 * max(height, width) and -side < left < width and -side < top < height):
        raise ValueError(f"{box} is no frame in a picture of {width} x {height} pixels")
    first = np.floor([top, left]).astype(int)
    last = np.ceil([top + side, left + side]).astype(int)
    rows = np.arange(first[0], last[0]).clip(0, height - 1)
    columns = np.arange(first[1], last[1]).clip(0, width - 1)
    grey = Image.fromarray(picture[rows[:, None], columns]).convert("L")
    left, top = left - first[1], top - first[0]
    resized = grey.resize(
        (IMAGE_SIZE, IMAGE_SIZE),
        Image.Resampling.BILINEAR,
        box=(left, top, min(left + side, grey.width), min(top + side, grey.height)),
    )
    return np.asarray(resized)


def whole_picture(picture: np.ndarray) -> list[Box]:
    """The detector for pictures that are faces already: the largest square in the middle."""
    height, width, _ = picture.shape
    side = min(height, width)
    return [Box((width - side) / 2, (height - side) / 2, side)]


class LbpDetector:
    """scikit-image's frontal face cascade on local binary patterns; comes with its weights.

    Made for upright faces seen from the front, at least 1/16 of the picture's longer side and 32
    pixels. Pictures are looked at with a longer side of at most 512 pixels.
    """

    def __init__(self) -> None:
        # Here, so that the other detectors do not wait for this import.
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        self._cascade = Cascade(lbp_frontal_face_cascade_filename())

    def __call__(self, picture: np.ndarray) -> list[Box]:
        """See `Detector`."""
        grey = Image.fromarray(picture).convert("L")
        shrink = max(1.0, max(grey.size) / LBP_PICTURE_SIDE)
        size = [round(length / shrink) for length in grey.size]
        if min(size) < LBP_SMALLEST:
            return []
        found = self._cascade.detect_multi_scale(
            np.asarray(grey.resize(size, Image.Resampling.BILINEAR)),
            scale_factor=1.2,
            step_ratio=1,
            min_size=(LBP_SMALLEST, LBP_SMALLEST),
            max_size=(size[1], size[0]),
        )
        boxes = [
            _frame(
                (hit["c"] + hit["width"] / 2) * shrink,
                (hit["r"] + hit["height"] / 2) * shrink,
                hit["width"] * shrink * LBP_FRAME,
            )
            for hit in found
        ]
        return _distinct(boxes)


class YuNetDetector:
    """OpenCV's YuNet network; finds turned, tilted and half hidden faces too.

    YuNet's box reaches from forehead to chin, and its height is taken as the frame's side: chosen
    by definition, not measured as for the cascade.

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
                "the YuNet detector needs OpenCV: pip install 'deep-emotion-jax[video]'"
            ) from error
        if not os.path.isfile(model):
            raise UserError(f"there is no YuNet model file {os.fspath(model)}")
        try:
            self._network = cv2.FaceDetectorYN.create(os.fspath(model), "", (320, 320))
        except cv2.error as error:
            raise UserError(f"OpenCV cannot read {os.fspath(model)} as a YuNet model") from error

    def __call__(self, picture: np.ndarray) -> list[Box]:
        """See `Detector`."""
        height, width, _ = picture.shape
        self._network.setInputSize((width, height))
        _, found = self._network.detect(np.ascontiguousarray(picture[..., ::-1]))
        boxes = [
            _frame(left + w / 2, top + h / 2, max(w, h))
            for left, top, w, h in ([] if found is None else found[:, :4].tolist())
        ]
        return _distinct(boxes)


def _frame(centre_x: float, centre_y: float, side: float) -> Box:
    return Box(centre_x - side / 2, centre_y - side / 2, side)


def _distinct(boxes: list[Box]) -> list[Box]:
    """The boxes, largest first, without those that lie with their centre in a larger one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.side):
        x, y = box.left + box.side / 2, box.top + box.side / 2
        if not any(
            0 <= x - other.left <= other.side and 0 <= y - other.top <= other.side for other in kept
        ):
            kept.append(box)
    return kept
