"""Calibration of probabilities by one temperature, and the calibration curve.

temperature = fit_temperature(validation_logits, validation_labels)
probabilities = softmax(logits / temperature)
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from matplotlib.figure import Figure

from deep_emotion_jax.evaluation.metrics import calibration_error

TEMPERATURES = (0.05, 20.0)
BINS = 10


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the negative log-likelihood of the labels.

    Dividing logits by it does not change predictions. Guo et al., "On Calibration of Modern Neural
    Networks" (ICML 2017), section 4.2.

    Args:
      logits: [N, K] of validation images.
      labels: [N] integers in [0, K).

    Returns:
      A number in the range `TEMPERATURES`; 1 if all images are classified correctly, because the
      likelihood then has no maximum.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if (logits.argmax(1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        shares = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-shares[np.arange(len(labels)), labels].mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def errors(
    temperature: float, parts: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Return the calibration error of each split before and after scaling.

    Args:
      temperature: divides the logits.
      parts: split -> logits [N, K] and labels [N].
    """
    return {
        part: {
            "before": calibration_error(logits, labels),
            "after": calibration_error(logits / temperature, labels),
        }
        for part, (logits, labels) in parts.items()
    }


def view_errors(
    temperature: float, views: Sequence[np.ndarray], labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return the calibration error of one view, and of the mean over all, before and after scaling.

    Args:
      temperature: divides the logits of each view before their probabilities are averaged.
      views: logits [N, K] of the images and of their mirror images.
      labels: [N].
    """

    def mean(scale: float) -> np.ndarray:
        shares = [scipy.special.softmax(np.float64(logits) / scale, axis=1) for logits in views]
        return np.log(np.mean(shares, axis=0))

    return {
        **errors(temperature, {"one view": (views[0], labels)}),
        "with the mirror image": {
            "before": calibration_error(mean(1.0), labels),
            "after": calibration_error(mean(temperature), labels),
        },
    }


class Bin(NamedTuple):
    """The images whose confidence (largest probability) lies in one interval."""

    images: int
    confidence: float
    accuracy: float


def curve(logits: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Return a `Bin` for each of `BINS` equal intervals of confidence that holds an image."""
    shares = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    confidence, correct = shares.max(1), logits.argmax(1) == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean()))
        for inside in (places == i for i in range(BINS))
        if inside.any()
    ]


def draw_curves(curves: Mapping[str, list[Bin]], path: str | os.PathLike[str], title: str) -> None:
    """Draw named calibration curves as a PNG; marker areas show the number of images."""
    figure = Figure((5, 4.6), dpi=150, layout="constrained", facecolor="white")
    axes: Any = figure.subplots()
    axes.set_title(title, wrap=True)
    axes.plot([0, 100], [0, 100], color="#555555", linewidth=1, linestyle=(0, (4, 3)))
    most = max(part.images for bins in curves.values() for part in bins)
    for (name, bins), colour in zip(curves.items(), ("#D55E00", "#0072B2"), strict=False):
        confidence = [100 * part.confidence for part in bins]
        accuracy = [100 * part.accuracy for part in bins]
        axes.plot(confidence, accuracy, color=colour, label=name)
        areas = [12 + 120 * part.images / most for part in bins]
        axes.scatter(confidence, accuracy, areas, color=colour, edgecolors="white", zorder=3)
    axes.set_xlabel("confidence (%)")
    axes.set_ylabel("accuracy (%)")
    axes.set_aspect("equal")
    axes.grid(color="lightgrey", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)
