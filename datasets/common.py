"""Code shared by the builders: preparation without TensorFlow, checks, and crops of 48 x 48.

TFDS needs TensorFlow only to encode arrays as images and to write TFRecord. The builders yield
encoded bytes (`encode_png`, or a source's own JPEG), and `prepare` writes ArrayRecord.

    builder = Builder(data_dir="data")
    common.prepare(builder, manual_dir="downloads/fer2013")
    source = builder.as_data_source(split="train")
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from deep_emotion_jax.data.crop import Box as Square
from deep_emotion_jax.data.crop import crop
from deep_emotion_jax.data.decoding import Unreadable, decode, on_background
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import lock

SIZE = 48
MAX_PIXELS = 1 << 22


def prepare(
    builder: tfds.core.DatasetBuilder, manual_dir: str | os.PathLike[str] | None = None
) -> None:
    """Writes a dataset to `builder.data_path` as ArrayRecord, unless it exists.

    TFDS writes to a temporary folder and renames it at the end, so a dataset is complete or absent.
    Remains of a killed preparation are deleted. If another process prepares the dataset, it waits.

    Args:
      builder: any builder of this package.
      manual_dir: the raw data, a folder or a single file; see the dataset's README. Not needed if
        the dataset is prepared already or generated.

    Raises:
      UserError: if `manual_dir` is missing or its data are missing, damaged or incomplete, or the
        disk cannot be read or written.
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
    tfds.disable_progress_bar()  # It has three nested bars; slow builders show their own.
    try:
        with dataset_lock(builder):
            if builder.data_path.exists():  # prepared by another process in the meantime
                builder.info.read_from_directory(builder.data_path)
                return
            for rest in builder.data_path.parent.glob(f"incomplete.*_{builder.data_path.name}"):
                shutil.rmtree(rest)
            # Hides TFDS's message about a download of "Unknown size"; nothing is downloaded.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
                    file_format="array_record",
                )
    except OSError as error:
        raise UserError(
            f"{builder.info.full_name} could not be prepared in {builder.data_path}: {error}; "
            "check the free disk space and the permissions of the path."
        ) from error


@contextlib.contextmanager
def dataset_lock(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Holds the dataset's lock while its files are written; waits if another process holds it."""
    builder.data_dir_root.mkdir(parents=True, exist_ok=True)
    with open(builder.data_dir_root / f"{builder.name}.lock", "w") as file:
        if not lock(file):
            print(f"waiting for another process to prepare {builder.info.full_name}", flush=True)
            lock(file, wait=True)
        yield


def face_features(labels: Sequence[str]) -> tfds.features.FeaturesDict:
    """Returns the features of a dataset without official splits.

    `key` identifies an example and never changes; `subject` is the person shown; `sequence` is
    shared by near-copies, or "" if the dataset does not mark them.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 1)),
            "label": tfds.features.ClassLabel(names=labels),
            "key": tfds.features.Text(),
            "subject": tfds.features.Text(),
            "sequence": tfds.features.Text(),
        }
    )


def manual_path(dl_manager: tfds.download.DownloadManager, instructions: str) -> Path:
    """Returns the raw data's folder or file.

    Args:
      dl_manager: the argument of `_split_generators`.
      instructions: the builder's `MANUAL_DOWNLOAD_INSTRUCTIONS`, shown in errors.

    Raises:
      UserError: if the path does not exist, is an empty folder, or is neither folder nor file.
    """
    # The public `dl_manager.manual_dir` does not accept a file.
    path = Path(dl_manager._manual_dir)
    if not path.exists():
        raise UserError(f"{path} does not exist.\n{instructions}")
    if not (path.is_dir() or path.is_file()):  # Reading a pipe would block.
        raise UserError(f"{path} is neither a folder nor a file.\n{instructions}")
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"{path} is an empty folder.\n{instructions}")
    return path


def check_counts(source: Path, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Checks the number of images per split, with a warning for missing splits.

    Raises:
      UserError: if a split has a wrong number of images, or all splits are missing.
    """
    if not any(found.values()):
        raise UserError(f"{source} has no images; download it again.")
    for split, count in expected.items():
        if not found[split]:
            logging.warning("%s has no images of the %s split, which is left out", source, split)
        elif found[split] != count:
            raise UserError(
                f"{source} has {found[split]} images of the {split} split, not {count}; "
                "it is incomplete or altered: download it again."
            )


def check_totals(source: Path, found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Checks the counts of a dataset without official splits.

    Raises:
      UserError: if a count differs from the expected one.
    """
    for name, count in expected.items():
        if found[name] != count:
            raise UserError(
                f"{source} has {found[name]} {name}, not {count}; it is incomplete or altered: "
                "download it again."
            )


def read_image(data: bytes, path: Path) -> np.ndarray:
    """Decodes a picture of any format, as prediction does.

    Args:
      data: the file's content.
      path: the file's name for the error.

    Returns:
      uint8, (H, W) for grey, (H, W, 3) for RGB, (H, W, 4) for RGBA.

    Raises:
      UserError: if the image is damaged or has more than `MAX_PIXELS` pixels.
    """
    try:
        return np.asarray(decode(data, MAX_PIXELS))
    except Unreadable as error:
        raise UserError(f"{path} is not a readable image ({error}); download it again.") from error


def to_grey(image: np.ndarray, background: int = 128) -> np.ndarray:
    """Converts uint8 (H, W), (H, W, 3) or (H, W, 4) to grey uint8 (H, W); see `face_image`."""
    return np.asarray(on_background(Image.fromarray(image), background).convert("L"))


def face_image(
    image: np.ndarray, square: Square | None = None, background: int = 128
) -> np.ndarray:
    """Converts to grey, and crops to the network's input with `deep_emotion_jax.data.crop.crop`.

    Args:
      image: uint8, (H, W), (H, W, 3) or (H, W, 4), as from `read_image`.
      square: the square to keep; None for the largest central square.
      background: grey value in [0, 255] behind transparent pixels.

    Returns:
      uint8, (48, 48).

    Raises:
      ValueError: if the square does not intersect the picture.
    """
    pixels = to_grey(image, background)
    height, width = pixels.shape
    return crop(pixels, square or Square.around(width / 2, height / 2, min(height, width)))


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes uint8 (H, W) or (H, W, 3) as a PNG file object for `tfds.features.Image`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    file.seek(0)
    return file
