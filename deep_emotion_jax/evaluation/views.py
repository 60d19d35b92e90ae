"""Test-time augmentation: the mean probabilities of several views of each face."""

from collections.abc import Iterator

import numpy as np

from deep_emotion_jax.constants import VIEWS
from deep_emotion_jax.nn.logits import predict_mean
from deep_emotion_jax.nn.model import DeepEmotion

SHIFTS = ((0, 0), (3, 3), (3, -3), (-3, 3), (-3, -3))
"""Shifts down and to the right, in pixels of 48; the edge is repeated."""


def views(images: np.ndarray, choice: str) -> Iterator[np.ndarray]:
    """Yields the views of images [N, H, W, C], each of this shape.

    Args:
      images: the faces.
      choice: one of `VIEWS`: "none" yields the images, "mirror" also their mirror images, "shifts"
        the images shifted by each of `SHIFTS`, "ten" these and their mirror images.

    Raises:
      ValueError: for an unknown choice.
    """
    if choice not in VIEWS:
        raise ValueError(f"views must be one of {tuple(VIEWS)}, got {choice!r}")
    height, width = images.shape[1:3]
    margin = max(abs(pixels) for shift in SHIFTS for pixels in shift)
    border = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = np.pad(images, border, mode="edge")
    for down, right in SHIFTS if choice in ("shifts", "ten") else SHIFTS[:1]:
        top, left = margin - down, margin - right
        view = padded[:, top : top + height, left : left + width]
        yield view
        if choice in ("mirror", "ten"):
            yield view[:, :, ::-1]


def predict_views(model: DeepEmotion, images: np.ndarray, choice: str) -> np.ndarray:
    """Returns `predict_mean` [N, K] over the views of images uint8 [N, H, W, C]."""
    return predict_mean(model, views(images, choice))
