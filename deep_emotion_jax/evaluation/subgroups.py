"""Accuracy for each subject, if the dataset identifies subjects."""

from typing import NamedTuple

import numpy as np

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation.metrics import wilson_interval


class Subgroup(NamedTuple):
    """The accuracy on the images of one subject, with its 95 % Wilson interval, in [0, 1]."""

    subject: str
    images: int
    accuracy: float
    interval95: tuple[float, float]


def by_subject(faces: Split, correct: np.ndarray) -> list[Subgroup]:
    """Return the accuracy for each subject, lowest first; empty without subjects.

    An image that several networks have classified counts once, with the mean over the networks.

    Args:
      faces: N images; keys may repeat.
      correct: bool [N], True for correctly classified images.
    """
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for key, subject, right in zip(faces.keys, faces.subjects, correct, strict=True):
        outcomes.setdefault(subject, {}).setdefault(key, []).append(bool(right))
    found = []
    for subject, images in outcomes.items():
        if subject:
            accuracy = float(np.mean([np.mean(rights) for rights in images.values()]))
            interval = wilson_interval(accuracy * len(images), len(images))
            found.append(Subgroup(subject, len(images), accuracy, interval))
    return sorted(found, key=lambda group: (group.accuracy, group.subject))
