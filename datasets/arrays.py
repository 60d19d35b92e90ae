"""Splits as arrays, cached beside the prepared dataset after they are first decoded.

A split is one .npy file of records in `<dataset>/arrays/`. Its name has a fingerprint of the
prepared dataset and a checksum of its content, so stale, truncated or damaged files are rewritten.
If the folder cannot be written, the split is decoded at every start. `stored` reads and writes the
same files for splits that do not fit into memory.
"""

import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from numpy.lib import format as npy

from datasets import common
from deep_emotion_jax import files
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.runtime import multihost

TEXTS = ("keys", "subjects", "copies")
FORMAT = 1  # Increase it if `to_records` changes.


def load(builder: tfds.core.DatasetBuilder, split: str) -> Split:
    """Reads a split of a prepared dataset; all processes of a training must call it.

    Raises:
      UserError: if the data differ between processes.
    """
    stem = f"{split}-{fingerprint(builder, split)}"
    folder = Path(builder.data_path) / "arrays"
    found = _read(folder, stem)
    if jax.process_count() > 1:
        (missing,) = multihost.any_process(found is None)
        if found is not None and not missing:
            multihost.require_same(found.fingerprint(), "prepared images")
            return found
    elif found is not None:
        return found
    data = multihost.read_split(source(builder, split))
    if multihost.is_first():
        try:
            with common.dataset_lock(builder):
                if _read(folder, stem) is None:  # not written by another process
                    _write(folder, stem, split, data)
        except OSError as error:  # A full or read-only disk: the next start decodes again.
            logging.info("The arrays of %s are not cached: %s", split, error)
    return data


def source(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    """Returns the examples of a prepared split by index, with images still encoded."""
    images = [
        name
        for name, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.Image)
    ]
    return builder.as_data_source(
        split=split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
    )


def fingerprint(builder: tfds.core.DatasetBuilder, split: str) -> str:
    """Returns a hash that changes when the dataset is prepared again or `FORMAT` changes."""
    folder = Path(builder.data_path)
    digest = hashlib.sha256(f"{FORMAT} {builder.info.full_name}\n".encode())
    for name in ("dataset_info.json", "features.json"):
        digest.update((folder / name).read_bytes())
    for path in sorted(folder.glob(f"{builder.name}-{split}.array_record*")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _read(folder: Path, stem: str) -> Split | None:
    for path in sorted(folder.glob(f"{stem}-*.npy")):
        try:
            records = npy.open_memmap(path, mode="r")  # refuses pickled objects
            if path.stem == f"{stem}-{_checksum(records)}":
                return _split(records)
        except Exception as error:  # NumPy raises many types for damaged headers, even TokenError.
            logging.info("%s cannot be used: %s", path, error)
    return None


def _write(folder: Path, stem: str, split: str, data: Split) -> None:
    records = to_records(data)
    content = io.BytesIO()
    npy.write_array(content, records, allow_pickle=False)
    make_room(folder, split)
    files.write_bytes(folder / f"{stem}-{_checksum(records)}.npy", content.getvalue())


def make_room(folder: Path, split: str) -> None:
    """Creates the folder; removes the old and temporary files of a split."""
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob(f"{split}-*.npy"), *folder.glob(f".{split}-*.tmp")):
        old.unlink(missing_ok=True)


def _checksum(records: np.ndarray) -> str:
    return f"{zlib.crc32(records.view(np.uint8).data):08x}"


def to_records(data: Split, widths: Mapping[str, int] | None = None) -> np.ndarray:
    """Converts examples to records with the columns that the dataset has.

    Args:
      data: the examples.
      widths: text column -> its width in bytes; None for the length of the longest text.
    """
    widths = widths or {}
    columns: dict[str, np.ndarray] = {
        "images": data.images,
        "labels": data.labels,
        "keys": _texts(data.keys, widths.get("keys")),
        "subjects": _texts(data.subjects, widths.get("subjects")),
    }
    if data.evidence is not None:
        columns["evidence"] = data.evidence
    if data.soft_labels is not None:
        columns["soft_labels"] = data.soft_labels
    if data.copies is not None:
        columns["copies"] = _texts(data.copies, widths.get("copies"))
    kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    records = np.empty(len(data.keys), kinds)
    for name, column in columns.items():
        records[name] = column
    return records


def _split(records: np.ndarray) -> Split:
    names = records.dtype.names or ()
    return to_split({name: np.ascontiguousarray(records[name]) for name in names})


def to_split(columns: dict[str, Any]) -> Split:
    """Converts the columns of `to_records` to a split."""
    texts = {
        name: [text.decode() for text in columns[name].tolist()]
        for name in TEXTS
        if name in columns
    }
    return Split(**{**columns, **texts})


def _texts(texts: list[str], width: int | None) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, f"S{width or max(map(len, encoded), default=1) or 1}")
