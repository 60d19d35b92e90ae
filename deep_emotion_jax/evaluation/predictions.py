"""Predictions of a network on a split, as a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.special

from deep_emotion_jax.data.split import Split


def write_predictions(
    path: Path, split: Split, logits: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write one row per image: key, label, prediction, and the probability of every class."""
    probabilities = scipy.special.softmax(logits, axis=-1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label", "predicted", *class_names])
        for key, label, row in zip(split.keys, split.labels, probabilities, strict=True):
            shares = [f"{share:.4f}" for share in row]
            writer.writerow([key, class_names[label], class_names[row.argmax()], *shares])
