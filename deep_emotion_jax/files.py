"""Files written in one step: readers find the old file or the new one, never half of one."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file in one step, through a temporary file beside it.

    Args:
      path: the file to write or replace; its folder exists.
      content: all of it.

    Raises:
      OSError: if the disk is full or the folder cannot be written; an old file stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: PathLike, text: str) -> None:
    """Writes a UTF-8 text file in one step, as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: PathLike, obj: Any) -> None:
    """Writes a JSON file in one step, as `write_bytes`.

    Args:
      path: the file to write or replace; its folder exists.
      obj: dicts, sequences, numbers, strings, None and NumPy arrays or scalars. JSON has neither
        NaN nor infinity: both become null, as in JavaScript.

    Raises:
      TypeError: if `obj` holds something else.
    """
    write_text(path, json.dumps(_plain(obj), indent=2, allow_nan=False) + "\n")


def _plain(obj: Any) -> Any:
    if isinstance(obj, np.ndarray | np.generic):
        obj = obj.tolist()
    if isinstance(obj, Mapping):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj
