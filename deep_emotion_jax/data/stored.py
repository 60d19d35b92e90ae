"""Arrays whose rows stay in files and are read when they are indexed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_emotion_jax.errors import UserError


@dataclass(frozen=True)
class Part:
    """Rows in one file: row i begins at byte `offset + i * stride`."""

    path: Path
    offset: int
    stride: int
    count: int


class StoredRows:
    """An array [N, ...] in files, such as the images of a dataset that does not fit into memory.

    Indexing with a slice or with integers reads these rows into an array. The files are not
    memory-mapped: reading random rows is 3.5 times as fast, and mapped pages count as memory of the
    process.

    Args:
      parts: the files, in the order of their rows.
      dtype: of an element.
      row_shape: of a row.
    """

    def __init__(self, parts: Sequence[Part], dtype: Any, row_shape: Sequence[int]):
        self.parts, self.dtype = tuple(parts), np.dtype(dtype)
        self._ends = np.cumsum([part.count for part in parts])
        self.shape = (int(self._ends[-1]), *row_shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Number of bytes of all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        index = np.asarray(index, np.int64)
        if index.size and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        flat = np.where(index < 0, index + len(self), index).ravel()
        rows = np.empty((len(flat), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._ends, flat, side="right")
        for i in np.unique(owner).tolist():
            chosen = owner == i
            part = self.parts[i]
            try:
                rows[chosen] = self._read(part, flat[chosen] - (self._ends[i] - part.count))
            except (OSError, EOFError) as error:
                raise UserError(
                    f"cannot read the decoded images: {error}; run the same command again to "
                    "write them again and resume"
                ) from error
        return rows.reshape(*index.shape, *self.shape[1:])

    def _read(self, part: Part, index: np.ndarray) -> np.ndarray:
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        size = rows.nbytes // max(1, len(rows))
        view = rows.reshape(-1).view(np.uint8).data
        file = os.open(part.path, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):  # otherwise reading 2 kB fetches 128 kB
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
                return self._read_span(file, part, int(index[0]), rows)
            for i, row in enumerate(index.tolist()):
                own = view[i * size : (i + 1) * size]
                if os.preadv(file, [own], part.offset + row * part.stride) < size:
                    raise EOFError(f"{part.path} ends before row {row}")
        finally:
            os.close(file)
        return rows

    @staticmethod
    def _read_span(file: int, part: Part, first: int, rows: np.ndarray) -> np.ndarray:
        """Fills `rows` with consecutive rows, read together with the bytes between them."""
        span = np.empty((len(rows), part.stride), np.uint8)
        flat = rows.reshape(len(rows), -1).view(np.uint8)
        needed = span.size - part.stride + flat.shape[1]  # the last row may end the file
        begin = part.offset + first * part.stride
        done = 0
        while done < needed:  # one call reads 2 GB at most
            count = os.preadv(file, [span.reshape(-1)[done:needed].data], begin + done)
            if not count:
                raise EOFError(f"{part.path} ends before row {first + len(rows)}")
            done += count
        flat[:] = span[:, : flat.shape[1]]
        return rows


def concatenate(arrays: Sequence[Any]) -> Any:
    """Joins arrays along their first axis; all or none are `StoredRows`, which stay in files."""
    stored = [rows for rows in arrays if isinstance(rows, StoredRows)]
    if not stored:
        return np.concatenate(arrays)
    parts = [part for rows in arrays for part in rows.parts]
    return StoredRows(parts, stored[0].dtype, stored[0].shape[1:])
