"""Pictures from files, folders, patterns, videos and the webcam, one at a time, all in one form."""

import glob
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deep_emotion_jax.data.decoding import PICTURE_SUFFIXES, as_pixels, read_picture
from deep_emotion_jax.data.folders import walk
from deep_emotion_jax.errors import UserError

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
__all__ = ["Picture", "as_pixels", "read", "read_picture", "webcam"]
Report = Callable[[UserError], None]


@dataclass(frozen=True)
class Picture:
    """A picture and where it comes from.

    Attributes:
      source: path of the picture or video, or "webcam", or "" for an array.
      pixels: uint8 [H, W, 3] RGB, upright.
      frame: number of the frame in its video or stream, from 0; None for a picture.
      seconds: time of the frame in its video; None for a picture and the webcam.
    """

    source: str
    pixels: np.ndarray = field(repr=False)
    frame: int | None = None
    seconds: float | None = None


def read(paths: list[str], report: Report) -> Iterator[Picture]:
    """Reads pictures and the frames of videos, one at a time.

    Args:
      paths: pictures, videos, folders (with all below them, in alphabetical order, by the suffixes
        of pictures and videos), patterns such as "holiday/**/*.jpg", or "-" for a picture on
        standard input.
      report: called with the error for each unreadable file; reading goes on with the next.
    """
    for path in _files(paths, report):
        try:
            if str(path) == "-":
                yield Picture("-", as_pixels(sys.stdin.buffer))
            elif path.suffix.lower() in VIDEO_SUFFIXES:
                yield from _frames(str(path), str(path))
            else:
                yield Picture(str(path), read_picture(path))
        except UserError as error:
            report(error)


def webcam() -> Iterator[Picture]:
    """Frames of the first camera, for as long as it gives any.

    Raises:
      UserError: without OpenCV or a camera.
    """
    for picture in _frames(0, "webcam"):
        yield Picture(picture.source, picture.pixels, picture.frame)


def _files(paths: list[str], report: Report) -> Iterator[Path]:
    for path in paths:
        if "://" in path and not os.path.lexists(path):
            report(UserError(f"{path} is a URL, and nothing is read from the network; download it"))
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
            report(UserError(f"{path}: no picture and no video there"))


def _below(folder: str, report: Report) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        report(UserError(f"cannot read the folder {error.filename}: {error.strerror}"))

    for path in walk(folder, unreadable):
        if path.suffix.lower() in PICTURE_SUFFIXES + VIDEO_SUFFIXES:
            yield str(path)


def _frames(video: str | int, source: str) -> Iterator[Picture]:
    if isinstance(video, str) and not os.path.isfile(video):
        raise UserError(f"there is no file {video}")
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f'reading {source} needs OpenCV: pip install ".[video]" in the project\'s folder'
        ) from error
    capture = cv2.VideoCapture(video)
    try:
        frame = 0
        while True:
            more, pixels = capture.read()
            if not more:
                break
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield Picture(source, np.ascontiguousarray(pixels[..., ::-1]), frame, seconds)
            frame += 1
    finally:
        capture.release()
    if frame == 0:
        raise UserError(
            f"OpenCV reads no frame from {source}: it is damaged, no video, or not there"
        )
