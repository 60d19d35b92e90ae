"""Generates faces whose expression is known: random action units after EMFACS.

    example = draw_example(seed=0, index=42)

An example is a pure function of seed and index. Seven consecutive indices are the seven expressions
of a person, and `FACES_PER_SUBJECT` consecutive indices are all faces of a person, so splits by
subject are balanced. Only the action units depend on the label.
"""

from typing import NamedTuple

import numpy as np

from datasets.synthetic_faces.drawing import draw
from datasets.synthetic_faces.scene import random_person, random_scene
from deep_emotion_jax.constants import LABELS

ACTION_UNITS = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}
# An expression has all of REQUIRED, each of OPTIONAL with probability 1/2, and no others.
REQUIRED = {
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15),
    "fear": (1, 2, 4, 5, 20),
    "happy": (6, 12),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "neutral": (),
}
OPTIONAL = {
    "angry": (17, 25),
    "disgust": (4, 16, 17, 25),
    "fear": (7, 25, 26),
    "happy": (25, 26),
    "sad": (6, 17),
    "surprise": (25,),
    "neutral": (),
}
LEAST_INTENSITY = 0.5
FACES_PER_SUBJECT = 5 * len(LABELS)

_EVIDENCE = 0.04


class Example(NamedTuple):
    """A face with its ground truth.

    Attributes:
      image: uint8 [48, 48].
      label: index into `LABELS`.
      action_units: float32 [15] in the order of `ACTION_UNITS`: 0 if absent, else from
        `LEAST_INTENSITY` to 1, the maximum over both halves of the face.
      evidence_mask: bool [48, 48], the pixels that the action units change by more than 4 % of the
        range from black to white, with the same light and occluder, before the camera's gain, blur
        and noise. Empty for neutral.
      subject: number of the person.
    """

    image: np.ndarray
    label: int
    action_units: np.ndarray
    evidence_mask: np.ndarray
    subject: int


def draw_example(seed: int, index: int) -> Example:
    """Draws one face.

    Args:
      seed: seed of the dataset, from 0.
      index: number of the face, from 0.
    """
    subject, face = divmod(index, FACES_PER_SUBJECT)
    label = face % len(LABELS)
    person = random_person(np.random.default_rng((seed, 0, subject)))
    rng = np.random.default_rng((seed, 1, index))
    scene = random_scene(rng)
    intensities = random_intensities(rng, LABELS[label])
    pair = np.stack([np.zeros_like(intensities), intensities])
    rest, moved = draw(person, scene, dict(zip(ACTION_UNITS, pair.swapaxes(0, 1), strict=True)))
    return Example(
        image=_photograph(rng, moved),
        label=label,
        action_units=intensities.max(axis=1),
        evidence_mask=abs(moved - rest) > _EVIDENCE,
        subject=subject,
    )


def random_intensities(rng: np.random.Generator, expression: str) -> np.ndarray:
    """Samples action units for an expression.

    Returns:
      float32 [15, 2] for the two halves of the face: 0, or from `LEAST_INTENSITY` to 1.
    """
    chance, strength, slant = rng.random((3, len(ACTION_UNITS)), dtype=np.float32)
    present = [
        number in REQUIRED[expression] or (number in OPTIONAL[expression] and draw < 0.5)
        for number, draw in zip(ACTION_UNITS, chance, strict=True)
    ]
    strength, slant = (1 + strength) / 2, (slant - 0.5) / 2
    halves = np.stack([strength - slant, strength + slant], axis=1)
    return np.clip(halves, LEAST_INTENSITY, 1) * np.array(present)[:, None]


def _photograph(rng: np.random.Generator, tone: np.ndarray) -> np.ndarray:
    """Applies gain, gamma, blur and noise, and converts to uint8."""
    gain, gamma, blur, noise = rng.uniform((0.75, 0.75, 0, 0), (1.05, 1.3, 0.15, 0.03))
    tone = np.clip(gain * tone, 0, 1) ** gamma
    for _ in range(2):  # Blurs along the columns, then along the rows.
        padded = np.pad(tone, ((1, 1), (0, 0)), mode="edge")
        tone = ((1 - 2 * blur) * tone + blur * (padded[:-2] + padded[2:])).T
    tone = tone + noise * rng.standard_normal(tone.shape)
    return np.rint(255 * np.clip(tone, 0, 1)).astype(np.uint8)
