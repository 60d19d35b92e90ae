"""Where the face is in an original CK+ frame, framed as FER-2013 frames its faces.

In the mean of 400 neutral FER-2013 training images the eyes are 0.41 of the side apart and 0.37 of
it below the top. The detector's boxes are framed like those images as well.
"""

import io
import warnings
from pathlib import Path

import numpy as np

from datasets.common import Square
from deep_emotion_jax.data.detectors import FaceDetector
from deep_emotion_jax.errors import UserError

_SIDE = 2.5  # In distances between the eyes.
_EYES_BELOW_TOP = 0.375  # In sides.
_RIGHT_EYE, _LEFT_EYE = slice(36, 42), slice(42, 48)  # Of the usual 68 landmarks.


def landmark_square(landmarks: np.ndarray) -> Square:
    """Frames a face by its eyes, which no expression moves much.

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
      path: its name for the error.

    Returns:
      float64, (68, 2).

    Raises:
      UserError: the file does not hold 68 pairs of numbers.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # An empty file.
            landmarks = np.loadtxt(io.BytesIO(content))
    except ValueError as error:
        raise UserError(f"{path} does not hold numbers ({error}); download it again.") from error
    if landmarks.shape != (68, 2) or not np.isfinite(landmarks).all():
        raise UserError(
            f"{path} holds numbers of shape {landmarks.shape}, not 68 finite pairs; "
            "download it again."
        )
    return landmarks


def detect_square(image: np.ndarray) -> Square | None:
    """Frames the largest face found, at least a fifth of the image's height.

    Args:
      image: uint8, (H, W).
    """
    faces = FaceDetector()(np.repeat(image[..., None], 3, axis=2))
    # Largest first.
    return faces[0].box if faces and faces[0].box.side >= image.shape[0] / 5 else None
