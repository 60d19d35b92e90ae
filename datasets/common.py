"""What the builders share: safe reading of raw files, checks, and preparation without TensorFlow.

TFDS needs TensorFlow to encode arrays as images and to write TFRecord. A builder that yields
encoded bytes (`encode_png`, or a source's own JPEG) and is prepared by `prepare` does neither.

    builder = Builder(data_dir="data")
    common.prepare(builder, manual_dir="downloads/fer2013")
    source = builder.as_data_source(split="train")
"""

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from deep_emotion_jax.errors import UserError

MAX_FILE_BYTES = 1 << 20
MAX_PIXELS = 1 << 22


def prepare(
    builder: tfds.core.DatasetBuilder, manual_dir: str | os.PathLike[str] | None = None
) -> None:
    """Writes a dataset to `builder.data_path` as ArrayRecord; one that is there is used as it is.

    TFDS writes to a temporary folder and renames it at the end, so a dataset is whole or absent.

    Args:
      builder: any builder of this package.
      manual_dir: the raw data, a folder or a single file; see the dataset's README. Not needed by
        a dataset that is prepared already or that makes its own data.

    Raises:
      UserError: `manual_dir` is missing or holds no, damaged or incomplete data, or the disk
        cannot be read or written.
    """
    if builder.data_path.exists():
        logging.info("Using %s as prepared in %s", builder.info.full_name, builder.data_path)
        return
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        raise UserError(
            f"{builder.info.full_name} is not prepared in {builder.data_path} and no manual_dir "
            f"was given.\n{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    logging.info("Preparing %s in %s", builder.info.full_name, builder.data_path)
    tfds.disable_progress_bar()  # Three nested bars; a slow builder shows one of its own.
    try:
        # TFDS prints that it downloads "Unknown size", which is untrue here.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
                file_format="array_record",
            )
    except OSError as error:
        raise UserError(
            f"{builder.info.full_name} could not be prepared in {builder.data_path}: {error}; "
            "check that the disk has room and that the path may be read and written."
        ) from error


def manual_path(dl_manager: tfds.download.DownloadManager, instructions: str) -> Path:
    """Returns the raw data's folder or file.

    Args:
      dl_manager: what TFDS hands to `_split_generators`.
      instructions: the builder's `MANUAL_DOWNLOAD_INSTRUCTIONS`, shown if nothing is there.

    Raises:
      UserError: the path does not exist or is an empty folder.
    """
    # The public `dl_manager.manual_dir` refuses a single file.
    path = Path(dl_manager._manual_dir)
    if not path.exists():
        raise UserError(f"{path} does not exist.\n{instructions}")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is an empty folder.\n{instructions}")
    return path


def check_counts(source: Path, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Checks the number of images per split; warns of a split that the source does not hold at all.

    Raises:
      UserError: a split is there in part or in excess, or all are absent.
    """
    if not any(found.values()):
        raise UserError(f"{source} holds no images; download it again.")
    for split, count in expected.items():
        if not found[split]:
            logging.warning("%s holds no images of the %s split: left out", source, split)
        elif found[split] != count:
            raise UserError(
                f"{source} holds {found[split]} images of the {split} split, not {count}; "
                "it is incomplete or altered: download it again."
            )


def read_files(
    root: Path, suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")
) -> Iterator[tuple[Path, bytes]]:
    """Yields the files below a folder or in a zip archive, in the order of their names.

    Nothing is ever extracted to disk. Hidden files and macOS's `__MACOSX` twins are skipped.

    Args:
      root: a folder or a zip archive.
      suffixes: endings to keep, in lower case.

    Yields:
      `root / member` and the content.

    Raises:
      UserError: the archive is damaged or a file is larger than `MAX_FILE_BYTES`.
    """

    def wanted(member: Path) -> bool:
        hidden = any(part.startswith((".", "__MACOSX")) for part in member.parts)
        return member.suffix.lower() in suffixes and not hidden

    if root.is_dir():
        for path in sorted(path for path in root.rglob("*") if wanted(path.relative_to(root))):
            with path.open("rb") as image:
                yield path, _read_small(image, path)
        return
    try:
        with zipfile.ZipFile(root) as archive:
            for name in sorted(name for name in archive.namelist() if wanted(Path(name))):
                with archive.open(name) as member:
                    yield root / name, _read_small(member, root / name)
    # RuntimeError: encrypted, or (NotImplementedError) an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{root} is not a whole zip archive ({error}); download it again."
        ) from error


def _read_small(file: IO[bytes], path: Path) -> bytes:
    # Reading one byte past the limit tells, whatever size an archive claims for its member.
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not one of these images.")
    return data


def read_image(data: bytes, path: Path) -> np.ndarray:
    """Decodes a JPEG, PNG or TIFF file.

    Args:
      data: the file's content.
      path: the file's name for the error.

    Returns:
      uint8, (H, W) if grey, (H, W, 3) if RGB, (H, W, 4) if RGBA.

    Raises:
      UserError: the image is damaged, too large, or of another kind (palette, 16 bits ...).
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "TIFF"))
        if image.width * image.height <= MAX_PIXELS:
            image.load()
    # What Pillow raises depends on which bytes are damaged.
    except (OSError, SyntaxError, EOFError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not a readable image ({error}); download it again.") from error
    except Image.DecompressionBombError:
        raise UserError(f"{path} unpacks to far too many pixels; download it again.") from None
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{path} has {image.width} x {image.height} pixels, far too many.")
    if image.mode not in ("L", "RGB", "RGBA"):
        raise UserError(f"{path} is neither 8-bit grey nor RGB (Pillow mode {image.mode}).")
    return np.asarray(image)


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes uint8 (H, W) or (H, W, 3) as the file object that `tfds.features.Image` takes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    file.seek(0)
    return file
