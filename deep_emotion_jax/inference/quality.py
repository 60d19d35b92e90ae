"""Marks faces on which the answer is known to be worse: docs/detector.md has the measurements."""

import numpy as np

from deep_emotion_jax.data.crop import Box

# Each threshold is where the accuracy on photographs has dropped by about ten points, but for
# PROFILE: 99 of 100 faces of FER-2013's training data are turned less.
SMALL = 28
SHARPNESS = 0.3
CONTRAST = 10
PROFILE = 0.32


def notes(pixels: np.ndarray, box: Box, landmarks: np.ndarray | None = None) -> tuple[str, ...]:
    """Why the answer for a face may be wrong.

    Args:
      pixels: what the network saw, uint8 [48, 48].
      box: the face's frame in the picture.
      landmarks: [5, 2], see `FoundFace`; None if unknown.

    Returns:
      Any of "small" (in the picture), "blurred", "dark" (or otherwise without contrast) and
      "profile" (turned further to the side than the network's training faces).
    """
    grey = pixels.astype(np.float64)
    marks = {
        "small": box.side < SMALL,
        "blurred": sharpness(grey) < SHARPNESS,
        "dark": grey.std() < CONTRAST,
        "profile": landmarks is not None and abs(turn(landmarks)) > PROFILE,
    }
    return tuple(name for name, holds in marks.items() if holds)


def sharpness(grey: np.ndarray) -> float:
    """Standard deviation of the Laplacian of [48, 48], in units of the image's own."""
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).std() / max(grey.std(), 1.0))


def turn(landmarks: np.ndarray) -> float:
    """How far a head is turned to the side: 0 from the front, beyond 0.3 nearly in profile.

    The nose's distance from the middle between the eyes, measured along the line through the eyes,
    in units of the distance from eyes to mouth, which turning the head does not change.
    """
    right_eye, left_eye, nose, right_mouth, left_mouth = np.asarray(landmarks, np.float64)
    across = left_eye - right_eye
    down = (right_mouth + left_mouth - right_eye - left_eye) / 2
    beside = (nose - (right_eye + left_eye) / 2) @ across
    return float(beside / max(np.hypot(*across) * np.hypot(*down), 1e-9))
