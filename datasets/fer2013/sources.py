"""Reads FER-2013 from the files in which it is distributed."""

import contextlib
import csv
import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from datasets import archives, common
from deep_emotion_jax.constants import LABELS
from deep_emotion_jax.data.folders import walk
from deep_emotion_jax.errors import UserError

USAGES = ("Training", "PublicTest", "PrivateTest")
SIZE = 48

# Tables with one row per face in the challenge's order, and its split; preferred, as FER+ needs
# this order.
_TABLES = ("fer2013.csv", "icml_face_data.csv")
_ROW_FILES = (
    "fer2013.csv",
    "fer2013.csv.gz",
    "fer2013.tar.gz",
    *("icml_face_data.csv", "icml_face_data.csv.gz"),
)
_TRAIN_FILES = ("train.csv", "train.csv.gz")
_IMAGES = (".jpg", ".jpeg", ".png")
_FACE_NAME = re.compile(rf"({'|'.join(USAGES)})_\w+")
# A row has less than 10,000 characters, the table 301 MB. The limits protect against small archives
# that unpack to more than the memory holds.
_MAX_ROW = 1 << 16
_MAX_UNPACKED = 1 << 29
# Stricter than int(), which accepts "+7" and "0_7", and faster.
_PIXEL_VALUES = {str(value): value for value in range(256)}


class Face(NamedTuple):
    """One image of the source.

    Attributes:
      key: identifies it, see the builder.
      usage: one of USAGES.
      label: one of LABELS.
      image: the encoded PNG or JPEG.
      pixels: a digest of the decoded pixels.
    """

    key: str
    usage: str
    label: str
    image: bytes
    pixels: bytes


def find(path: Path) -> Path:
    """Returns the file or folder to read FER-2013 from; the README has the order of preference.

    Args:
      path: one of the sources, or a folder with one at any depth.

    Raises:
      UserError: if no source or several zip archives are found.
    """
    if path.is_file():
        return path
    # Sorted by depth.
    below = sorted((file for file in walk(path) if file.is_file()), key=lambda p: len(p.parts))

    def named(*names: str) -> list[Path]:
        return [file for name in names for file in below if file.name.lower() == name]

    if tables := named(*_ROW_FILES):
        return tables[0]
    packed = [file for file in below if file.name.lower().endswith(".zip")]
    beside = [file for file in packed if file.parent == path]
    has_images = any(
        _FACE_NAME.fullmatch(file.stem) for file in below if file.suffix.lower() in _IMAGES
    )
    if not beside and has_images:
        return path
    packed = beside or packed
    if len(packed) > 1:
        names = ", ".join(archive.relative_to(path).as_posix() for archive in packed)
        raise UserError(f"{path} has several archives ({names}); give the path of the one to use.")
    if found := packed or named(*_TRAIN_FILES):
        return found[0]
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8])
    raise UserError(
        f"{path} has none of {', '.join(_ROW_FILES)}, *.zip, <class>/Training_*.jpg or train.csv "
        f"(found: {there}); the README of datasets/fer2013 says where to get them."
    )


def has_row_order(source: Path) -> bool:
    """Returns whether a source has all rows in the challenge's order, which FER+ needs."""
    name = source.name.lower()
    if name.endswith(".zip"):
        with archives.open_member(source, *_TABLES) as table:
            return table is not None
    return name.endswith((".csv", ".csv.gz", ".tar.gz")) and not is_training_only(source)


def is_training_only(source: Path) -> bool:
    """Returns whether a source is the challenge's `train.csv`."""
    return source.name.lower() in _TRAIN_FILES


def read(source: Path) -> Iterator[Face]:
    """Yields and checks every face of a source.

    Args:
      source: a CSV file, `fer2013.tar.gz`, a zip archive or a folder of images.

    Raises:
      UserError: for the first malformed row or image, with its file and line.
    """
    name = source.name.lower()
    if source.is_dir():
        yield from _read_images(source)
    elif name.endswith(".zip"):
        with archives.open_member(source, *_TABLES) as table:
            if table is not None:
                path, content = table
                yield from _read_csv(content, path)
                return
        yield from _read_images(source)
    elif name.endswith(".csv"):
        with source.open("rb") as file:
            yield from _read_csv(file, source)
    elif name.endswith(".csv.gz"):
        with _gzip_errors(source, "gz"), gzip.open(source) as unpacked:
            yield from _read_csv(io.BufferedReader(unpacked), source)
    elif name.endswith(".tar.gz"):
        yield from _read_tar(source)
    else:
        raise UserError(
            f"{source} is not a .csv, .csv.gz, .tar.gz or .zip file, nor a folder of images."
        )


def _read_images(source: Path) -> Iterator[Face]:
    seen: dict[str, Path] = {}
    for path, data in archives.read_files(source, _IMAGES):
        # Kaggle's test/ folder mixes PublicTest and PrivateTest; the file name tells them apart.
        name = _FACE_NAME.fullmatch(path.stem)
        if not name:
            raise UserError(f"{path} is not named Training_*, PublicTest_* or PrivateTest_*.")
        label = path.parent.name
        if label not in LABELS:
            raise UserError(f"{path} is in folder {label!r}, not in one of {', '.join(LABELS)}.")
        # In the Kaggle archive, two file names occur in two classes each, for different faces.
        key = f"{label}/{path.stem}"
        if key in seen:
            raise UserError(f"{path} is a duplicate of {seen[key]}; remove one of them.")
        seen[key] = path
        pixels = common.read_image(data, path)
        if pixels.shape != (SIZE, SIZE):
            mode = Image.open(io.BytesIO(data)).mode
            raise UserError(
                f"{path} has shape {pixels.shape} (Pillow mode {mode}), not {SIZE} x {SIZE} grey "
                "pixels."
            )
        yield Face(key, name[1], label, data, _digest(pixels))
    if not seen:
        raise UserError(
            f"{source} has no <class>/Training_*.jpg; unpack it if it has CSV or tar.gz files."
        )


def _read_tar(source: Path) -> Iterator[Face]:
    with (
        _gzip_errors(source, "tar.gz"),
        gzip.open(source) as plain,
        tarfile.open(fileobj=_Bounded(plain), mode="r:") as archive,
    ):
        for member in archive:
            if member.isfile() and PurePosixPath(member.name).name == "fer2013.csv":
                file = archive.extractfile(member)
                assert file is not None  # not for a regular file
                yield from _read_csv(file, source / member.name)
                return
    raise UserError(f"{source} has no fer2013.csv; download it again.")


@contextlib.contextmanager
def _gzip_errors(source: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{source} is not a complete {kind} file ({error}); download it again."
        ) from error


class _Bounded(io.RawIOBase):
    """An unpacked stream of limited size, because tarfile reads whole names and headers at once."""

    def __init__(self, file: gzip.GzipFile):
        self._file = file
        self.tell, self.seekable = file.tell, file.seekable  # type: ignore[method-assign]

    def read(self, size: int = -1) -> bytes:
        self._check(size, _MAX_ROW)
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self._check(place, _MAX_UNPACKED)
        return self._file.seek(place, whence)

    def _check(self, number: int, largest: int) -> None:
        if not 0 <= number <= largest:
            raise tarfile.ReadError(f"{number} bytes where FER-2013 has at most {largest}")


def read_rows(
    file: IO[bytes], path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields `"<path>, line <n>"` and column -> value for each row of a CSV file with a header.

    Names and values are stripped: `icml_face_data.csv` has a column `" pixels"`. Names are matched
    in any case, and returned as in `columns` and `optional`.

    Raises:
      UserError: if the file is not CSV text, lacks one of `columns`, or a row has too few or too
        many values.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    taken = 0  # characters of the current row, which quotes can spread over several lines

    def lines() -> Iterator[str]:
        nonlocal taken
        while line := text.readline(_MAX_ROW + 1):
            taken += len(line)
            if taken > _MAX_ROW:
                raise csv.Error(f"a row of more than {_MAX_ROW} characters")
            yield line

    reader = csv.reader(lines())
    known = {name.lower(): name for name in (*columns, *optional)}
    try:
        header = [known.get(name.strip().lower(), name.strip()) for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}; give the original file, with its labels."
            )
        for values in reader:
            taken = 0
            if not values:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(values) != len(header):
                raise UserError(f"{where}: {len(values)} values for {len(header)} columns.")
            yield where, dict(zip(header, map(str.strip, values), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}, after line {reader.line_num}: not CSV text ({error}).") from error


def _read_csv(file: IO[bytes], path: Path) -> Iterator[Face]:
    usages = {usage.lower(): usage for usage in USAGES}
    rows = read_rows(file, path, ("emotion", "pixels"), ("Usage",))
    for index, (where, row) in enumerate(rows):
        if index == 0 and "Usage" not in row:
            logging.warning(
                "%s has no Usage column: its rows are the training split; Kaggle's test.csv has no "
                "labels and is not used",
                path,
            )
        if row["emotion"] not in map(str, range(len(LABELS))):
            raise UserError(f"{where}: emotion {row['emotion']!r} is not 0 to {len(LABELS) - 1}.")
        usage = usages.get(row.get("Usage", "Training").lower())
        if usage is None:
            raise UserError(f"{where}: Usage {row['Usage']!r} is not one of {', '.join(USAGES)}.")
        try:
            pixels = bytes(map(_PIXEL_VALUES.__getitem__, row["pixels"].split()))
        except KeyError as error:
            raise UserError(f"{where}: pixel {error} is not a whole number, 0 to 255.") from None
        if len(pixels) != SIZE * SIZE:
            raise UserError(f"{where}: {len(pixels)} pixels, not {SIZE * SIZE}.")
        image = np.frombuffer(pixels, np.uint8).reshape(SIZE, SIZE)
        yield Face(
            f"row_{index:05}",
            usage,
            LABELS[int(row["emotion"])],
            common.encode_png(image).getvalue(),
            _digest(image),
        )


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
