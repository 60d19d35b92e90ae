"""Pictures from files, folders, patterns, videos and the webcam, one at a time, all in one form."""

import glob
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deep_emotion_jax.errors import UserError

# Only formats that hold pixels: Pillow hands EPS to Ghostscript, which runs programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
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
    pixels: np.ndarray
    frame: int | None = None
    seconds: float | None = None


def read(paths: list[str], report: Report) -> Iterator[Picture]:
    """Reads pictures and the frames of videos, one at a time.

    Args:
      paths: pictures, videos, folders (with all below them, in alphabetical order, by the suffixes
        of pictures and videos) or patterns such as "holiday/**/*.jpg".
      report: is told, for each file that cannot be read, why; reading then goes on with the next.
    """
    for path in _files(paths, report):
        try:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield from _frames(str(path), str(path))
            else:
                yield Picture(str(path), read_picture(path))
        except UserError as error:
            report(error)


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a picture file: upright by its EXIF tag, transparency on white, first frame.

    Returns:
      uint8 [H, W, 3] RGB.

    Raises:
      UserError: if it is missing, damaged, no picture, or larger than Pillow's 89 megapixels.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"cannot read {path}: it is no file")  # a pipe would be waited for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF data and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _pixels(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path} has too many pixels; scale it down: {error}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"cannot read {path}: not a picture, or not in {FORMATS}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"cannot read {path}: {error}") from error


def as_pixels(picture: Any) -> np.ndarray:
    """An array or Pillow image in the form that `read_picture` gives.

    Args:
      picture: a Pillow image, or [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA) of uint8,
        uint16, or floats in [0, 1].

    Raises:
      UserError: for another shape, type or range, and for NaN.
    """
    if isinstance(picture, Image.Image):
        return _pixels(picture)
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f"a picture must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {list(array.shape)}"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # so that NaN fails as well
            raise UserError(
                "a picture of floats must lie in [0, 1], got "
                f"{array.min():.3g} to {array.max():.3g}"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = _to_bytes(array)
    elif array.dtype != np.uint8:
        raise UserError(f"a picture must be uint8, uint16 or floats in [0, 1], got {array.dtype}")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array if array.shape[2] == 3 else _pixels(Image.fromarray(array))


def webcam() -> Iterator[Picture]:
    """Frames of the first camera, for as long as it gives any.

    Raises:
      UserError: without OpenCV or a camera.
    """
    for picture in _frames(0, "webcam"):
        yield Picture(picture.source, picture.pixels, picture.frame)


def _files(paths: list[str], report: Report) -> Iterator[Path]:
    for path in paths:
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

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            # Names like ._IMG.jpg hold no picture but what macOS notes about one.
            if suffix in PICTURE_SUFFIXES + VIDEO_SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)


def _pixels(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode[0] in "IF":  # 16 and 32 bits, which Pillow's own conversion would clip
        array = np.asarray(image)
        if image.mode == "F" or array.min() < 0 or array.max() > 65535:
            raise UserError(
                f"its {image.mode} pixels have no fixed range; save it with 8 or 16 bits"
            )
        image = Image.fromarray(_to_bytes(array))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _to_bytes(array: np.ndarray) -> np.ndarray:
    """Scales 0..65535 to 0..255."""
    return np.rint(array / 257).astype(np.uint8)


def _frames(video: str | int, source: str) -> Iterator[Picture]:
    if isinstance(video, str) and not os.path.isfile(video):
        raise UserError(f"there is no file {video}")
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"reading {source} needs OpenCV: pip install 'deep-emotion-jax[video]'"
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
