"""Fuzzing targets besides datasets: videos, detections, stored arrays, device names."""

import gzip
import itertools
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds

from datasets import arrays, common
from datasets.fer2013 import sources
from datasets.synthetic_faces import synthetic_faces_dataset_builder as synthetic
from deep_emotion_jax.data import detectors
from deep_emotion_jax.data.crop import crop
from deep_emotion_jax.data.pictures import read
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime.devices import choose_devices
from tests.films import plain, write

from . import seeds

PARTS = ("train", "validation", "test")
FRAMES = 64  # A damaged header may promise any number.
PICTURE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def videos(folder: Path) -> list[bytes]:
    """A few frames as MP4, Matroska and AVI."""
    times = [0.0, 0.04, 0.1, 0.5]
    forms = (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mjpeg"))
    return [write(folder / name, plain(times), codec).read_bytes() for name, codec in forms]


def read_video(path: Path) -> None:
    """Reads every frame as predict does."""
    refused: list[UserError] = []
    for picture in itertools.islice(read([str(path)], refused.append), FRAMES):
        if picture.pixels.dtype != np.uint8 or picture.pixels.ndim != 3:
            raise ValueError(f"a frame of {picture.pixels.dtype} {picture.pixels.shape}")
    if refused:
        raise refused[0]


def frame_detections(data: bytes) -> None:
    """Interprets the bytes as detections of up to 3,000 faces and crops them."""
    rng = random.Random(data)
    # Thousands are rare: they take a second and find no more than a few.
    count = rng.choices((0, 1, 2, 5, 30, 3000), (20, 40, 40, 60, 40, 0.2))[0]
    numbers = np.resize(
        np.frombuffer(data + b"\0" * (-len(data) % 4) or b"\0" * 4, "<f4"), 15 * count
    )
    if rng.random() < 0.7:  # mostly plausible outputs of a network
        with np.errstate(all="ignore"):
            numbers = np.nan_to_num(numbers, nan=0.5) % 200
    rows = numbers.reshape(count, 15).astype(np.float32)
    found = detectors.Candidates(rows[:, 0] % 1, rows[:, 1:5], rows[:, 5:].reshape(count, 5, 2))
    with np.errstate(all="ignore"):
        faces = detectors.framed(found)
    for face in faces[:20]:
        if face.box.meets(*PICTURE.shape[:2]):
            crop(PICTURE, face.box, face.roll)


def read_gzip(path: Path) -> None:
    """Reads FER-2013 as a compressed CSV."""
    list(sources.read(path))


def gzips(_: Path) -> list[bytes]:
    """Valid compressed CSV files."""
    return [gzip.compress(seeds.csv(), 1), gzip.compress(seeds.csv(1), 9)]


@cache
def _prepared() -> tuple[tfds.core.DatasetBuilder, Split, Path]:
    """A small dataset, its training split, and the file in which that is stored."""

    folder = tempfile.mkdtemp(prefix="fuzz-arrays-")
    with mock.patch.object(synthetic.Builder, "SUBJECTS", dict.fromkeys(PARTS, 1)):
        builder = synthetic.Builder(data_dir=folder)
        common.prepare(builder)
    split = arrays.load(builder, "train")
    (kept,) = Path(folder).glob("**/arrays/train-*.npy")
    return builder, split, kept


def kept_arrays(_: Path) -> list[bytes]:
    """The undamaged file."""
    return [_prepared()[2].read_bytes()]


def read_arrays(_: Path, data: bytes) -> Callable[[], object]:
    """Reading a damaged file must give the faces of the undamaged one."""
    builder, split, kept = _prepared()
    kept.write_bytes(data)

    def load() -> None:
        found = arrays.load(builder, "train")
        if found.fingerprint() != split.fingerprint():
            raise ValueError("other faces")

    return load


def choose_device(data: bytes) -> None:
    """Interprets the bytes as the name of an accelerator."""
    choose_devices(data.decode("utf-8", "replace"))
