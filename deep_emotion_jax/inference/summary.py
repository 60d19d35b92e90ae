"""Summarises a video by person, in memory independent of the number of frames."""

import csv
import io
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from deep_emotion_jax.inference.predictor import Face, Prediction

# Weight of a frame whose duration is unknown or zero, in seconds.
LEAST = 1e-3
# Largest gap in seconds between two sightings that are joined.
JOINED = 1e-6


class Run(NamedTuple):
    """A period in which a person's expression does not change, in seconds."""

    start: float
    end: float
    expression: str


@dataclass(eq=False)
class Lane:
    """A person in a video.

    Attributes:
      track: number of the person, see `video.Follower`.
      frames: number of frames in which the face was found.
      seconds: total duration of these frames.
      runs: the expressions over time, without periods in which the face was not found.
      face: the network's input with the highest detector score, uint8 [48, 48].
    """

    track: int
    frames: int = 0
    seconds: float = 0.0
    runs: list[Run] = field(default_factory=list)
    face: np.ndarray | None = None
    _best: float = 0.0
    _weight: float = 0.0
    _total: dict[str, float] = field(default_factory=dict)

    @property
    def probabilities(self) -> dict[str, float]:
        """Mean probabilities, weighted by the durations of the frames."""
        return {name: total / self._weight for name, total in self._total.items()}

    @property
    def expression(self) -> str:
        """The most probable expression on average."""
        return max(self._total, key=lambda name: self._total[name])

    def add(self, face: Face, start: float, end: float) -> None:
        """Add a frame that lasts from start to end."""
        self.frames += 1
        self.seconds += end - start
        weight = max(end - start, LEAST)
        self._weight += weight
        for name, share in face.probabilities.items():
            self._total[name] = self._total.get(name, 0.0) + weight * share
        if face.score > self._best:
            self._best, self.face = face.score, face.pixels
        last = self.runs[-1] if self.runs else None
        if last and last.expression == face.expression and start - last.end < JOINED:
            self.runs[-1] = last._replace(end=end)
        else:
            self.runs.append(Run(start, end, face.expression))


class Summary:
    """Collects the predictions of one video; a frame lasts until the next one.

    Attributes:
      lanes: track number -> lane; complete after `finish`.
      seconds: the end of the last complete frame.
    """

    def __init__(self) -> None:
        self.lanes: dict[int, Lane] = {}
        self.seconds = 0.0
        self._last: Prediction | None = None
        self._step = 0.0

    def add(self, prediction: Prediction) -> None:
        """Add the next frame."""
        seconds = prediction.picture.seconds or 0.0
        if self._last is not None:
            self._step = max(0.0, seconds - self.seconds)
        self._close(seconds)
        self._last = prediction

    def finish(self) -> list[Lane]:
        """Add the last frame, as long as the previous one, and return all lanes by number."""
        self._close(self.seconds + self._step)
        self._last = None
        return [self.lanes[track] for track in sorted(self.lanes)]

    def _close(self, end: float) -> None:
        for face in self._last.faces if self._last else ():
            assert face.track is not None
            lane = self.lanes.setdefault(face.track, Lane(face.track))
            lane.add(face, self.seconds, max(end, self.seconds))
        self.seconds = max(end, self.seconds)


def as_csv(lanes: list[Lane], classes: tuple[str, ...]) -> str:
    """Format a CSV table with one row per person; docs/video.md describes the columns."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["track", "first", "last", "seconds", "frames", "expression", *classes])
    for lane in lanes:
        times = (lane.runs[0].start, lane.runs[-1].end, lane.seconds)
        means = (f"{share:.4f}" for share in lane.probabilities.values())
        rounded = (f"{time:.3f}" for time in times)
        rows.writerow([lane.track, *rounded, lane.frames, lane.expression, *means])
    return text.getvalue()


def as_text(lanes: list[Lane]) -> str:
    """Format a text table: when each person was seen, and the three most probable expressions."""
    lines = [f"{'track':>5}  {'from':>8}  {'to':>8}  {'seen':>8}  on average"]
    for lane in lanes:
        best = sorted(lane.probabilities.items(), key=lambda item: -item[1])[:3]
        means = ", ".join(f"{name} {share:.0%}" for name, share in best)
        times = (lane.runs[0].start, lane.runs[-1].end, lane.seconds)
        start, end, seen = (f"{time:6.1f} s" for time in times)
        lines.append(f"{lane.track:5}  {start}  {end}  {seen}  {means}")
    return "\n".join(lines)
