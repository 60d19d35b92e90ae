"""Follows the faces of a video: identities, smoothed probabilities, and an annotated film.

`follow` is for one video from its start to its end; `Follower` for predictions that come from
elsewhere.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deep_emotion_jax.constants import SMOOTH_SECONDS
from deep_emotion_jax.data.pictures import Picture, Report, frames
from deep_emotion_jax.data.video import ALL, Every, Video
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing
from deep_emotion_jax.inference.predictor import Face, Prediction, Predictor
from deep_emotion_jax.inference.tracking import Sighting, Smoother, Tracker, look

# The longer side of the frames of an annotated film, at most.
FILM_SIDE = 1280
# The first that FFmpeg has: every player and browser plays the first.
CODECS = ("libx264", "libopenh264", "mpeg4")
# Times of a film are counted in these, as in most MP4 files.
TICK = Fraction(1, 90_000)


def follow(
    predictor: Predictor,
    opened: Video,
    every: Every = ALL,
    smooth: float = SMOOTH_SECONDS,
    *,
    live: bool = False,
    report: Report | None = None,
) -> Iterator[Prediction]:
    """Name the expressions in the frames of a video, with the number of each person.

    Only a few frames are in memory at a time.

    Args:
      predictor: finds the faces and names their expressions.
      opened: the video or camera.
      every: which frames to take.
      smooth: seconds over which probabilities are averaged, see `Smoother`; 0 for none.
      live: answer for every frame before the next is read, at some cost of time.
      report: called with an error in reading, instead of raising it.

    Raises:
      UserError: as `Video.frames`, after the predictions for all frames that can be read.
    """
    problems: list[UserError] = []

    def readable() -> Iterator[Picture]:
        # An error must not overtake the frames that wait for their batch to fill.
        try:
            yield from frames(opened, every)
        except UserError as error:
            problems.append(error)

    if live:
        predictions = (next(predictor.stream([picture])) for picture in readable())
        yield from map(Follower(smooth), predictions)
    else:
        yield from map(Follower(smooth), predictor.stream(readable()))
    for problem in problems:
        if report is None:
            raise problem
        report(problem)


class Follower:
    """Numbers the faces of one video's predictions, frame after frame, and smooths their answers.

    Args:
      smooth: see `follow`.
    """

    def __init__(self, smooth: float = SMOOTH_SECONDS):
        self._tracker = Tracker()
        self._smoother = Smoother(smooth)

    def __call__(self, prediction: Prediction) -> Prediction:
        """Return the next frame's prediction with `Face.track` set, and the means over time."""
        seconds = prediction.picture.seconds or 0.0
        sightings = [
            Sighting(face.box, face.landmarks, look(face.pixels)) for face in prediction.faces
        ]
        tracks = self._tracker.update(seconds, sightings)
        self._smoother.keep(self._tracker.alive)
        faces = (
            self._smoothed(face, track, seconds)
            for face, track in zip(prediction.faces, tracks, strict=True)
        )
        return replace(prediction, faces=tuple(faces))

    def _smoothed(self, face: Face, track: int, seconds: float) -> Face:
        names = list(face.probabilities)
        now = np.array(list(face.probabilities.values()))
        shares = self._smoother.update(track, seconds, now)
        return replace(
            face,
            expression=names[int(shares.argmax())],
            probabilities=dict(zip(names, shares.tolist(), strict=True)),
            track=track,
        )


class Film:
    """An annotated video in the making: an MP4 of the frames that were analysed, at their times.

    It is written under a temporary name beside its own, which it gets from `finish`.

    Args:
      path: where it goes; folders are made as needed.
      source: the file that is read.

    Raises:
      UserError: if it would replace the source, or cannot be written.
    """

    def __init__(self, path: Path, source: str):
        import av

        self.path = path
        self._av = av
        self._container: Any = None
        self._ticks = -1
        if path.exists() and os.path.exists(source) and os.path.samefile(path, source):
            raise UserError(f"{path} is the video that is read; give another folder to --save")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(".mp4", f".{path.name}.", path.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        os.close(handle)
        self._temporary = Path(name)

    def add(self, prediction: Prediction) -> Image.Image:
        """Add a frame, and return it as it is drawn.

        Raises:
          UserError: if it cannot be written; nothing is left of the film.
        """
        image = draw(prediction)
        try:
            if self._container is None:
                self._open(image.size)
            frame = self._av.VideoFrame.from_image(image)  # PyAV scales it to the film's size.
            # No two frames may have one time.
            seconds = prediction.picture.seconds or 0.0
            self._ticks = max(self._ticks + 1, round(seconds / TICK))
            frame.pts, frame.time_base = self._ticks, TICK
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise self._unwritable(error) from error
        return image

    def finish(self) -> bool:
        """Give the film its name, and return whether there is one: it has a frame at least.

        Raises:
          UserError: if it cannot be written; nothing is left of the film.
        """
        if self._container is None:
            self.discard()
            return False
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
            os.chmod(self._temporary, 0o666 & ~_umask())
            os.replace(self._temporary, self.path)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise self._unwritable(error) from error
        self._container = None
        return True

    def discard(self) -> None:
        """Leave nothing behind; without effect on a finished film."""
        container, self._container = self._container, None
        self._temporary.unlink(missing_ok=True)
        if container is not None:
            # The disk may be full.
            with contextlib.suppress(self._av.FFmpegError, OSError, ValueError):
                container.close()

    def _open(self, size: tuple[int, int]) -> None:
        # H.264 with half the colour resolution has even sides.
        codec = next(name for name in CODECS if name in self._av.codecs_available)
        options = {"preset": "veryfast", "crf": "21"} if codec == "libx264" else {}
        self._container = self._av.open(
            os.path.abspath(self._temporary), "w", format="mp4", options={"movflags": "+faststart"}
        )
        self._stream = self._container.add_stream(codec, rate=30, options=options)
        self._stream.width, self._stream.height = (length + length % 2 for length in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = TICK

    def _unwritable(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        return UserError(f"cannot write {self.path}: {reason}")


def draw(prediction: Prediction) -> Image.Image:
    """Draw a frame with the box, number and expression of each face."""
    # The attended region moves with every frame, and says little in a film.
    faces = tuple(replace(face, region=None) for face in prediction.faces)
    return drawing.with_boxes(replace(prediction, faces=faces), FILM_SIDE)


def _umask() -> int:
    """The process's mask for new files, which `mkstemp` does not use."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
