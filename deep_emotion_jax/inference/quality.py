"""Marks faces on which predictions are less accurate; docs/detector.md has the measurements."""

import numpy as np

from deep_emotion_jax.data.crop import Box

# At each threshold, the accuracy on photographs has dropped by about ten points. PROFILE is the
# 99th percentile of FER-2013's training faces.
SMALL = 28
SHARPNESS = 0.3
CONTRAST = 10
PROFILE = 0.32


def notes(pixels: np.ndarray, box: Box, landmarks: np.ndarray | None = None) -> tuple[str, ...]:
    """Return reasons why the prediction for a face may be wrong.

    Args:
      pixels: the network's input, uint8 [48, 48].
      box: the face's box in the picture.
      landmarks: [5, 2], see `FoundFace`; None if unknown.

    Returns:
      Any of "small" (in the picture), "blurred", "dark" (or otherwise of low contrast) and
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
    """Standard deviation of the Laplacian of an image [48, 48], divided by that of the image."""
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).std() / max(grey.std(), 1.0))


def turn(landmarks: np.ndarray) -> float:
    """Measure how far a head is turned: 0 from the front, beyond 0.3 nearly in profile.

    This is the nose's distance from the midpoint of the eyes, along the line through the eyes,
    divided by the distance from eyes to mouth, which does not change when the head turns.
    """
    right_eye, left_eye, nose, right_mouth, left_mouth = np.asarray(landmarks, np.float64)
    across = left_eye - right_eye
    down = (right_mouth + left_mouth - right_eye - left_eye) / 2
    beside = (nose - (right_eye + left_eye) / 2) @ across
    return float(beside / max(np.hypot(*across) * np.hypot(*down), 1e-9))
