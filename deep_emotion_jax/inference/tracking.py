"""Tracks faces: assigns the faces of successive frames to persons.

Each track predicts the current position of its face with a Kalman filter of position and velocity.
The Hungarian algorithm pairs predictions with faces by overlap, landmarks and appearance; SORT
(Bewley et al., 2016) does so by overlap alone. Times are in seconds, so the frame rate may vary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from deep_emotion_jax.data.crop import Box

# A track ends if its face is not seen for LOST_SECONDS, or for LOST_FRAMES if that is longer.
LOST_SECONDS, LOST_FRAMES = 2.0, 2.5
# Standard deviation of the detector's box, in sides of the face. The box of a partly covered face
# shrinks to its visible part, so CROWDED applies within BESIDE sides of another face.
MEASURED, CROWDED, BESIDE = 0.04, 0.1, 1.6
# Square root of the spectral density of a head's acceleration, in sides / s^1.5.
ACCELERATION = 4.0
# Time constant in seconds of the average of a box's side; longer beside another face.
RESIZING, RESIZING_CROWDED = 0.3, 3.0
# Time constant in seconds with which the velocity of an unseen face decays.
KEEPS_MOVING = 2.0
# Largest distance from prediction to face, in sides: NEAR, plus NEAR_PER_SECOND since the face was
# last seen, up to FARTHEST. The side may change by the factor RESIZED.
NEAR, NEAR_PER_SECOND, FARTHEST, RESIZED = 1.0, 1.0, 2.0, 1.8
# Weight of appearance relative to position; both are at most 1.
LIKENESS = 1.0
# Rate per second at which a track adapts to the appearance of its face, 26 % in the first second.
# It is low, because partly covered faces look different for a while.
RELOOK = 0.3


@dataclass(frozen=True, eq=False)
class Sighting:
    """A face in one frame.

    Attributes:
      box: the square around the face in the picture.
      landmarks: [5, 2] in pixels of the picture, or None.
      look: its appearance, see `look`, or None.
    """

    box: Box
    landmarks: np.ndarray | None = None
    look: np.ndarray | None = None


def look(pixels: np.ndarray) -> np.ndarray:
    """Return a coarse description of a face's appearance: [144], with mean 0 and length 1.

    The dot product of two is the correlation of the faces at 12 x 12 pixels.

    Args:
      pixels: the network's input, uint8 [48, 48].
    """
    coarse = pixels.astype(np.float64).reshape(12, 4, 12, 4).mean(axis=(1, 3)).ravel()
    coarse -= coarse.mean()
    return coarse / max(float(np.linalg.norm(coarse)), 1e-9)


class Tracker:
    """Assigns track numbers, from 1, to the faces of successive frames; none is used twice."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._seconds: float | None = None
        self._next = 1

    @property
    def alive(self) -> set[int]:
        """Numbers of the tracks that have not ended."""
        return {track.number for track in self._tracks}

    def update(self, seconds: float, faces: Sequence[Sighting]) -> list[int]:
        """Pair the faces of a frame with the tracks.

        Args:
          seconds: the frame's time, not before that of the last frame.
          faces: the faces; the result does not depend on their order.

        Returns:
          The track number of each face.
        """
        step = 0.0 if self._seconds is None else max(0.0, seconds - self._seconds)
        self._seconds = seconds
        patience = max(LOST_SECONDS, LOST_FRAMES * step)
        self._tracks = [track for track in self._tracks if seconds - track.seen <= patience]
        for track in self._tracks:
            track.predict(step)
        # Sorted, so that ties and new numbers do not depend on the detector's order.
        order = sorted(range(len(faces)), key=lambda i: faces[i].box)
        pairs = _pairs(self._tracks, [faces[i] for i in order], seconds)
        numbers = [0] * len(faces)
        for place, i in enumerate(order):
            if place in pairs:
                track = pairs[place]
                track.correct(faces[i], seconds, _is_crowded(i, faces))
            else:
                track = _Track(self._next, faces[i], seconds)
                self._tracks.append(track)
                self._next += 1
            numbers[i] = track.number
        return numbers


class Smoother:
    """Averages the probabilities of each track over time.

    A frame that is t seconds old has the weight exp(-t / seconds). Weights are normalised, so the
    first frame of a track is not smoothed, and the frame rate may vary.

    Args:
      seconds: the time constant; 0 turns smoothing off.
    """

    def __init__(self, seconds: float):
        self._window = seconds
        self._sums: dict[int, tuple[float, float, np.ndarray]] = {}

    def update(self, track: int, seconds: float, probabilities: np.ndarray) -> np.ndarray:
        """Add a frame's probabilities [C] to a track's mean, and return the mean."""
        if not self._window:
            return probabilities
        before, weight, total = self._sums.get(track, (seconds, 0.0, np.zeros(len(probabilities))))
        fade = math.exp(min(0.0, before - seconds) / self._window)
        weight, total = fade * weight + 1, fade * total + probabilities
        self._sums[track] = (seconds, weight, total)
        return total / weight

    def keep(self, tracks: set[int]) -> None:
        """Delete all tracks but these."""
        self._sums = {track: value for track, value in self._sums.items() if track in tracks}


@dataclass(eq=False)
class _Track:
    """The last face and the predicted position of a person.

    Attributes:
      place: [2, 2], x and y of the centre in pixels, each with its velocity.
      spread: [2, 2], covariance of position and velocity in sides, the same for x and y.
      log_side: logarithm of the box's side.
      landmarks: [5, 2] relative to the centre, in sides, or None.
    """

    number: int
    first: Sighting
    seen: float
    place: np.ndarray = field(init=False)
    spread: np.ndarray = field(init=False)
    log_side: float = field(init=False)
    landmarks: np.ndarray | None = field(init=False)
    look: np.ndarray | None = field(init=False)

    def __post_init__(self) -> None:
        self.place = np.stack([np.array(self.first.box.centre), np.zeros(2)], axis=1)
        # Initial velocity: standard deviation of one side per second.
        self.spread = np.diag([MEASURED**2, 1.0])
        self.log_side = _log_side(self.first.box)
        self.landmarks = _within(self.first)
        self.look = self.first.look

    @property
    def box(self) -> Box:
        """The predicted box of the face."""
        x, y = self.place[:, 0].tolist()
        return Box.around(x, y, math.exp(self.log_side))

    def predict(self, step: float) -> None:
        """Predict the state `step` seconds later."""
        slower = math.exp(-step / KEEPS_MOVING)
        forward = np.array([[1.0, KEEPS_MOVING * (1 - slower)], [0.0, slower]])
        step = min(step, KEEPS_MOVING)  # Beyond that, the position is unknown anyway.
        self.place = self.place @ forward.T
        noise = np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        self.spread = forward @ self.spread @ forward.T + ACCELERATION**2 * noise

    def correct(self, face: Sighting, seconds: float, crowded: bool) -> None:
        """Update the state with the face of a frame."""
        noise = CROWDED if crowded else MEASURED
        gain = self.spread[:, 0] / (self.spread[0, 0] + noise**2)
        error = np.array(face.box.centre) - self.place[:, 0]
        self.place = self.place + error[:, None] * gain
        self.spread = self.spread - gain[:, None] * self.spread[0]
        share = 1 - math.exp((self.seen - seconds) / (RESIZING_CROWDED if crowded else RESIZING))
        self.log_side += share * (_log_side(face.box) - self.log_side)
        self.landmarks = _within(face)
        if self.look is None or face.look is None:
            self.look = face.look
        else:
            share = 1 - math.exp(-RELOOK * max(0.0, seconds - self.seen))
            mixed = (1 - share) * self.look + share * face.look
            self.look = mixed / max(float(np.linalg.norm(mixed)), 1e-9)
        self.seen = seconds


def _log_side(box: Box) -> float:
    return math.log(max(box.side, 1e-3))


def _is_crowded(index: int, faces: Sequence[Sighting]) -> bool:
    """Whether another face is close to the face at `index`."""
    box = faces[index].box
    return any(
        math.dist(box.centre, other.box.centre) < BESIDE * max(box.side, other.box.side)
        for i, other in enumerate(faces)
        if i != index
    )


def _within(face: Sighting) -> np.ndarray | None:
    return None if face.landmarks is None else (face.landmarks - face.box.centre) / face.box.side


def _pairs(tracks: list[_Track], faces: list[Sighting], seconds: float) -> dict[int, "_Track"]:
    """Return face index -> track, for the pairs with the largest total affinity."""
    affinity = np.array([[_affinity(t, face, seconds) for t in tracks] for face in faces])
    if not affinity.size:
        return {}
    rows, columns = linear_sum_assignment(affinity, maximize=True)
    # Impossible pairs have affinity 0, all others more.
    return {
        int(row): tracks[column]
        for row, column in zip(rows, columns, strict=True)
        if affinity[row, column] > 0
    }


def _affinity(track: _Track, face: Sighting, seconds: float) -> float:
    """Return 0 for an impossible pair, else a positive number up to 1 + `LIKENESS`."""
    box = track.box
    side = math.sqrt(box.side * face.box.side)
    reach = min(FARTHEST, NEAR + NEAR_PER_SECOND * (seconds - track.seen))
    distance = math.dist(box.centre, face.box.centre) / side
    ratio = face.box.side / box.side
    if distance > reach or not 1 / RESIZED < ratio < RESIZED:
        return 0.0
    if track.landmarks is not None and face.landmarks is not None:
        expected = box.centre + track.landmarks * box.side
        distance = float(np.linalg.norm(expected - face.landmarks, axis=1).mean()) / side
    likeness = 0.0
    if track.look is not None and face.look is not None:
        likeness = max(0.0, float(track.look @ face.look))
    place = (overlap(box, face.box) + math.exp(-2 * distance)) / 2
    return 1e-6 + place + LIKENESS * likeness


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width, height = (
        max(0.0, min(low + one.side, other_low + other.side) - max(low, other_low))
        for low, other_low in zip(one[:2], other[:2], strict=True)
    )
    inside = width * height
    return inside / max(one.side**2 + other.side**2 - inside, 1e-9)
