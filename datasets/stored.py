"""Splits whose images stay in a file, for datasets that do not fit into memory.

The files are those of `arrays`, written and read in blocks. Labels, keys, subjects and soft labels
are in memory.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from numpy.lib import format as npy

from datasets import arrays, common
from deep_emotion_jax.data.split import Split, load_split
from deep_emotion_jax.data.stored import Part, StoredRows
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime import multihost

BLOCK = 1 << 13  # examples decoded or read at once, 40 MB
_LARGE = ("images", "evidence")
_FEATURES = {"keys": "key", "subjects": "subject", "copies": "copy_of"}


def size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Returns the size in bytes of the decoded images of a split, including their evidence."""
    images = [
        feature
        for feature in builder.info.features.values()
        if isinstance(feature, tfds.features.Image)
    ]
    pixels = sum(int(np.prod(image.shape)) for image in images)
    return builder.info.splits[split].num_examples * pixels


def load(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    """Reads a split of a prepared dataset; images and evidence are `StoredRows`.

    All processes of a training must call it. If the file does not exist, the first process writes
    it and the others wait; those that still do not find it write it to their own disk.

    Raises:
      UserError: if the file cannot be written, or the data differ between processes.
    """
    folder = Path(builder.data_path) / "arrays"
    stem = f"{split}-{arrays.fingerprint(builder, split)}"

    def found_or_written() -> Split:
        found = _read(folder, stem)
        if found is None:
            found = _write_once(builder, folder, stem, split)
        assert found is not None
        return found

    data = multihost.in_step(found_or_written, only_first=True)
    if jax.process_count() > 1:
        data = multihost.in_step(lambda: data or found_or_written())
        assert data is not None
        multihost.require_same(data.fingerprint(), "prepared images")
    assert data is not None
    return data


def _read(folder: Path, stem: str) -> Split | None:
    for path in sorted(folder.glob(f"{stem}-*.npy")):
        try:
            found, checksum = _read_file(path)
        except (EOFError, OSError, ValueError, TypeError, KeyError) as error:
            logging.info("%s cannot be used: %s", path, error)
            continue
        if path.stem == f"{stem}-{checksum:08x}":
            return found
    return None


def _read_file(path: Path) -> tuple[Split, int]:
    """Returns the split in a file, and the checksum of its records."""
    with path.open("rb") as file:
        npy.read_magic(file)
        (count,), _, dtype = npy.read_array_header_1_0(file)
        offset, checksum = file.tell(), 0
        if dtype.hasobject or dtype.fields is None:
            raise ValueError("it has no records")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in dtype.fields}
        while len(block := np.fromfile(file, dtype, BLOCK)):
            checksum = zlib.crc32(block.view(np.uint8).data, checksum)
            for name in parts.keys() - set(_LARGE):
                parts[name].append(block[name].copy())
    columns: dict[str, Any] = {}
    for name, (kind, place, *_) in dtype.fields.items():
        if name in _LARGE:
            part = Part(path, offset + place, dtype.itemsize, count)
            columns[name] = StoredRows([part], kind.base, kind.shape)
        else:
            columns[name] = np.concatenate(parts[name])
    return arrays.to_split(columns), checksum


def _write_once(
    builder: tfds.core.DatasetBuilder, folder: Path, stem: str, split: str
) -> Split | None:
    """Writes the file of a split unless another process is writing it, and reads the split.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        with common.dataset_lock(builder):
            found = _read(folder, stem)
            if found is None:
                print(f"writing the decoded images of {split} to {folder}", flush=True)
                _write(folder, stem, split, arrays.source(builder, split))
                found = _read(folder, stem)
            return found
    except OSError as error:
        raise UserError(
            f"the decoded images of {split} cannot be written to {folder}: {error}; free some disk "
            "space, choose another config.data_dir, or set config.streaming='never' to keep them "
            "in memory"
        ) from error


def _write(folder: Path, stem: str, split: str, source: Any) -> None:
    """Writes the file in blocks under a temporary name, and renames it at the end."""
    temporary = folder / f".{stem}.{os.getpid()}.tmp"
    arrays.make_room(folder, split)
    try:
        with temporary.open("wb") as file:
            checksum = _write_records(file, source)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{stem}-{checksum:08x}.npy")
    finally:
        temporary.unlink(missing_ok=True)


def _write_records(file: Any, source: Any) -> int:
    """Writes the examples of a source as one array of records, and returns their checksum."""
    widths = dict.fromkeys(_FEATURES, 1)
    for block in _blocks(source):
        for example in block.read():  # images stay encoded
            for name, feature in _FEATURES.items():
                widths[name] = max(widths[name], len(example.get(feature, b"")))
    checksum, header = 0, None
    for block in _blocks(source):
        records = arrays.to_records(load_split(block), widths)
        if header is None:
            header = npy.header_data_from_array_1_0(records) | {"shape": (len(source),)}
            npy.write_array_header_1_0(file, header)
        records.tofile(file)
        checksum = zlib.crc32(records.view(np.uint8).data, checksum)
    return checksum


class _Block:
    """Some consecutive examples of a source."""

    def __init__(self, source: Any, first: int):
        self._source, self._first = source, first

    def __len__(self) -> int:
        return min(BLOCK, len(self._source) - self._first)

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        return self._source.__getitems__([self._first + place for place in places])

    def read(self) -> list[dict[str, Any]]:
        """Returns all examples of the block."""
        return self.__getitems__(list(range(len(self))))


def _blocks(source: Any) -> Iterator[_Block]:
    return (_Block(source, first) for first in range(0, len(source), BLOCK))
