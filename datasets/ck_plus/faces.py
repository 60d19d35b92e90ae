"""Finds the face in an original CK+ frame, with the framing of FER-2013.

In the mean of 400 neutral FER-2013 training images, the eyes are 0.41 of the side apart and 0.37 of
the side below the top. The detector's boxes have the same framing.
"""

import io
import warnings
from pathlib import Path

import numpy as np

from datasets.common import Square
from deep_emotion_jax.data.detectors import FaceDetector
from deep_emotion_jax.errors import UserError

_SIDE = 2.5  # in distances between the eyes
_EYES_BELOW_TOP = 0.375  # in sides
_RIGHT_EYE, _LEFT_EYE = slice(36, 42), slice(42, 48)  # of the usual 68 landmarks


def landmark_square(landmarks: np.ndarray) -> Square:
    """Returns the square around a face, from the eyes, which expressions hardly move.

    Args:
      landmarks: float, (68, 2), x and y in pixels, in the order of CK+ (that of iBUG 300-W).
    """
    right, left = landmarks[_RIGHT_EYE].mean(0), landmarks[_LEFT_EYE].mean(0)
    x, y = (right + left) / 2
    side = _SIDE * float(np.hypot(*(left - right)))
    return Square(float(x) - side / 2, float(y) - _EYES_BELOW_TOP * side, side)


def read_landmarks(content: bytes, path: Path) -> np.ndarray:
    """Reads a `*_landmarks.txt` file.

    Args:
      content: the file's content.
      path: the file's name for the error.

    Returns:
      float64, (68, 2).

    Raises:
      UserError: if the file is not 68 pairs of finite numbers.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            landmarks = np.loadtxt(io.BytesIO(content))
    except ValueError as error:
        raise UserError(f"{path} is not numeric ({error}); download it again.") from error
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise UserError(
            f"{path} has numbers of shape {landmarks.shape}, not 68 finite pairs; "
            "download it again."
        )
    return landmarks


def detect_square(image: np.ndarray) -> Square | None:
    """Returns the square around the largest face, or None if it is under 1/5 of the image's height.

    Args:
      image: uint8, (H, W).
    """
    faces = FaceDetector()(np.repeat(image[..., None], 3, axis=2))  # largest first
    return faces[0].box if faces and faces[0].box.side >= image.shape[0] / 5 else None
