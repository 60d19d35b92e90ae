"""Reads pictures from files, folders, patterns, videos and the webcam, one at a time."""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deep_emotion_jax.data import video
from deep_emotion_jax.data.decoding import PICTURE_SUFFIXES, as_pixels, read_picture
from deep_emotion_jax.data.folders import walk
from deep_emotion_jax.errors import UserError

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
# Outputs of `predict --save`, which may be in a folder that is read again.
WRITTEN = (".faces.jpg", ".faces.png", ".faces.mp4", ".timeline.png")
__all__ = ["Picture", "as_pixels", "files", "frames", "is_video", "read", "read_picture"]
Report = Callable[[UserError], None]


@dataclass(frozen=True)
class Picture:
    """A picture and its source.

    Attributes:
      source: path of the picture or video, or "webcam", or "" for an array.
      pixels: uint8 [H, W, 3] RGB, upright.
      frame: index of the frame in its video or stream, from 0; None for a picture.
      seconds: time since the first frame of the video or stream; None for a picture.
    """

    source: str
    pixels: np.ndarray = field(repr=False)
    frame: int | None = None
    seconds: float | None = None


def read(paths: Iterable[str], report: Report) -> Iterator[Picture]:
    """Reads pictures and the frames of videos, one at a time.

    Args:
      paths: pictures, videos, folders (all pictures and videos below them by suffix, in
        alphabetical order, without the outputs of `predict --save`), patterns such as
        "holiday/**/*.jpg", or "-" for a picture on standard input.
      report: called with the error for each unreadable file; reading continues with the next.
    """
    for path in files(paths, report):
        try:
            if is_video(path):
                with video.Video(path) as opened:
                    yield from frames(opened)
            elif str(path) == "-":
                yield Picture("-", as_pixels(sys.stdin.buffer))
            else:
                yield Picture(str(path), read_picture(path))
        except UserError as error:
            report(error)


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def frames(opened: video.Video, every: video.Every = video.ALL) -> Iterator[Picture]:
    """Yields the frames of an open video or camera, see `Video.frames`."""
    for number, seconds, pixels in opened.frames(every):
        yield Picture(opened.source, pixels, number, seconds)


def files(paths: Iterable[str], report: Report) -> Iterator[Path]:
    """Yields the files that `read` reads, with "-" for standard input."""
    for path in paths:
        if "://" in path and not os.path.lexists(path):
            report(UserError(f"{path} is a URL: download it first and give the path of the file"))
            continue
        if os.path.isdir(path):
            found: Iterator[str] = _below(path, report)
        elif os.path.lexists(path) or not glob.has_magic(path):
            found = iter([path])
        else:
            found = (name for name in glob.iglob(path, recursive=True) if os.path.isfile(name))
        empty = True
        for name in found:
            empty = False
            yield Path(name)
        if empty:
            report(UserError(f"{path}: no picture or video found"))


def _below(folder: str, report: Report) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        report(UserError(f"cannot read the folder {error.filename}: {error.strerror}"))

    for path in walk(folder, unreadable):
        is_read = path.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES
        if is_read and not path.name.endswith(WRITTEN):
            yield str(path)
