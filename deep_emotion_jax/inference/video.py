"""Tracks the faces of a video, smooths their probabilities, and writes an annotated film.

`follow` handles a whole video, `Follower` predictions from another source.
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

# Largest side of the frames of an annotated film.
FILM_SIDE = 1280
# The first one that FFmpeg has is used; all players and browsers support H.264.
CODECS = ("libx264", "libopenh264", "mpeg4")
# Unit of time in seconds, as in most MP4 files.
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
    """Predict the expressions in the frames of a video, and track the persons.

    Only a few frames are in memory at a time.

    Args:
      predictor: finds the faces and classifies their expressions.
      opened: the video or camera.
      every: which frames to use.
      smooth: seconds over which probabilities are averaged, see `Smoother`; 0 for none.
      live: predict each frame before reading the next, instead of in faster batches.
      report: called with a read error instead of raising it.

    Raises:
      UserError: as `Video.frames`, after the predictions for all frames that can be read.
    """
    problems: list[UserError] = []

    def readable() -> Iterator[Picture]:
        # Deferred, so that frames before the error, which may wait in a batch, come first.
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
    """Tracks the faces in successive predictions of one video, and smooths their probabilities.

    Args:
      smooth: see `follow`.
    """

    def __init__(self, smooth: float = SMOOTH_SECONDS):
        self._tracker = Tracker()
        self._smoother = Smoother(smooth)

    def __call__(self, prediction: Prediction) -> Prediction:
        """Return the next frame's prediction with `Face.track` and smoothed probabilities."""
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
    """Writes the analysed frames with annotations as an MP4, at their times.

    The file has a temporary name until `finish`.

    Args:
      path: the file to write; folders are created as needed.
      source: path of the video.

    Raises:
      UserError: if `path` is the source, or cannot be written.
    """

    def __init__(self, path: Path, source: str):
        import av

        self.path = path
        self._av = av
        self._container: Any = None
        self._ticks = -1
        if path.exists() and os.path.exists(source) and os.path.samefile(path, source):
            raise UserError(f"{path} is the input video; give another folder to --save")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(".mp4", f".{path.name}.", path.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        os.close(handle)
        self._temporary = Path(name)

    def add(self, prediction: Prediction) -> Image.Image:
        """Add a frame, and return the annotated image.

        Raises:
          UserError: if it cannot be written; the film is then discarded.
        """
        image = draw(prediction)
        try:
            if self._container is None:
                self._open(image.size)
            frame = self._av.VideoFrame.from_image(image)  # PyAV scales it to the film's size.
            # Times of frames must increase.
            seconds = prediction.picture.seconds or 0.0
            self._ticks = max(self._ticks + 1, round(seconds / TICK))
            frame.pts, frame.time_base = self._ticks, TICK
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self.discard()
            raise self._unwritable(error) from error
        return image

    def finish(self) -> bool:
        """Complete the file, and return whether it exists, which needs at least one frame.

        Raises:
          UserError: if it cannot be written; the film is then discarded.
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
        """Delete an unfinished film; no effect on a finished one."""
        container, self._container = self._container, None
        self._temporary.unlink(missing_ok=True)
        if container is not None:
            # The disk may be full.
            with contextlib.suppress(self._av.FFmpegError, OSError, ValueError):
                container.close()

    def _open(self, size: tuple[int, int]) -> None:
        # H.264 needs even sides, because yuv420p halves the colour resolution.
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
    # Without the attended region, which moves in every frame and is hard to read in a film.
    faces = tuple(replace(face, region=None) for face in prediction.faces)
    return drawing.with_boxes(replace(prediction, faces=faces), FILM_SIDE)


def _umask() -> int:
    """Returns the process's umask, which `mkstemp` ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
