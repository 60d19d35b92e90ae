"""The person and the scene of a picture: all properties that are independent of the label.

Lengths are in half face widths, with x to the viewer's right, y down and the origin between eyes
and mouth. Tones range from 0, black, to 1, white.
"""

import dataclasses
from typing import Literal

import numpy as np

OCCLUDERS = {"none": 0.4, "glasses": 0.2, "fringe": 0.15, "hand": 0.15, "scarf": 0.1}


@dataclasses.dataclass(frozen=True)
class Person:
    """The properties of a person."""

    width: float
    chin: float  # From the origin down.
    taper: float  # Narrowing from the temples to the jaw.
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    brow_y: float
    brow_length: float
    brow_thickness: float
    brow_slant: float  # Positive if the outer end is lower.
    nose_y: float  # Of the nostrils.
    nose_width: float
    mouth_y: float
    mouth_width: float
    mouth_curve: float  # Positive if the corners are lower.
    lip: float  # Thickness.
    wrinkles: float  # Depth of the wrinkles of action units.
    skin: float
    hair: float
    brow: float
    iris: float
    lip_tone: float
    hairline: float  # From the origin up.
    hairline_bend: float
    hair_volume: float
    hair_length: float  # From the origin down.
    beard: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """The properties of a picture."""

    roll: float  # Angles are in radians.
    yaw: float
    pitch: float
    scale: float  # Half the face's width in pixels.
    shift_x: float  # In pixels.
    shift_y: float
    light_x: float
    light_y: float
    gaze_x: float
    gaze_y: float
    background: float
    background_slope: float
    occluder: str
    occluder_side: Literal[-1, 1]
    occluder_tone: float


def random_person(rng: np.random.Generator) -> Person:
    """Samples a person."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    skin = between(0.42, 0.9)
    hair = between(0.05, 0.3) if rng.random() < 0.7 else between(0.4, 0.85)
    return Person(
        width=between(0.88, 1.05),
        chin=between(1.1, 1.35),
        taper=between(0.08, 0.32),
        eye_x=between(0.38, 0.48),
        eye_y=between(-0.27, -0.15),
        eye_width=between(0.19, 0.25),
        eye_height=between(0.1, 0.14),
        brow_y=between(-0.52, -0.42),
        brow_length=between(0.46, 0.58),
        brow_thickness=between(0.035, 0.08),
        brow_slant=between(-0.02, 0.06),
        nose_y=between(0.2, 0.34),
        nose_width=between(0.14, 0.23),
        mouth_y=between(0.58, 0.7),
        mouth_width=between(0.31, 0.42),
        mouth_curve=between(-0.03, 0.02),
        lip=between(0.06, 0.12),
        wrinkles=between(0.25, 0.5),
        skin=skin,
        hair=hair,
        brow=min(hair, 0.6 * skin) * between(0.6, 1),
        iris=between(0.08, 0.4),
        lip_tone=skin * between(0.5, 0.8),
        hairline=between(0.68, 1.15),
        hairline_bend=between(-0.15, 0.6),
        hair_volume=between(0.02, 0.28),
        hair_length=between(-0.4, 1.6),
        beard=max(0, between(-0.5, 0.5)),
    )


def random_scene(rng: np.random.Generator) -> Scene:
    """Samples pose, light, background and occluder."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    return Scene(
        roll=between(-0.25, 0.25),
        yaw=between(-0.3, 0.3),
        pitch=between(-0.15, 0.15),
        scale=between(17.5, 21.5),
        shift_x=between(-2, 2),
        shift_y=between(-2, 2),
        light_x=between(-0.45, 0.45),
        light_y=between(-0.3, 0.3),
        gaze_x=between(-0.06, 0.06),
        gaze_y=between(-0.03, 0.03),
        background=between(0.1, 0.9),
        background_slope=between(-0.2, 0.2),
        occluder=str(rng.choice(list(OCCLUDERS), p=list(OCCLUDERS.values()))),
        occluder_side=1 if rng.random() < 0.5 else -1,
        occluder_tone=between(0, 0.9),
    )
