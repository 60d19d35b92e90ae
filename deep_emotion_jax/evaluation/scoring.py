"""Scores of trained networks on a split: logits, a table's cells, predictions as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import metrics


def score_cells(score: metrics.Metrics) -> tuple[str, ...]:
    """Accuracy and its interval in percent, macro-F1, calibration error, recalls in percent."""
    low, high = score.interval95
    return (
        f"{100 * score.accuracy:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{score.macro_f1:.3f}",
        f"{score.calibration_error:.3f}",
        *("-" if share is None else f"{100 * share:.1f}" for share in score.per_class_recall),
    )


def write_predictions(
    path: Path, split: Split, logits: np.ndarray, class_names: Sequence[str]
) -> None:
    """One row an image: key, label, prediction, and the probability of every class."""
    probabilities = np.asarray(jax.nn.softmax(logits))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label", "predicted", *class_names])
        for key, label, row in zip(split.keys, split.labels, probabilities, strict=True):
            shares = [f"{share:.4f}" for share in row]
            writer.writerow([key, class_names[label], class_names[row.argmax()], *shares])
