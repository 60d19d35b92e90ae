"""Atomic writes and file locks. Readers find the old file or the new one, never a partial one."""

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

PathLike = str | os.PathLike[str]
# Errors of flock on file systems without locks: Lustre, some network and container mounts.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file atomically, through a temporary file beside it.

    Args:
      path: the file to write or replace; its folder exists.
      content: the new content.

    Raises:
      OSError: if the disk is full or the folder is not writable; an old file is unchanged.
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
    """Writes a UTF-8 text file with `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: PathLike, obj: Any) -> None:
    """Writes a JSON file with `write_bytes`.

    Args:
      path: the file to write or replace; its folder exists.
      obj: dicts, sequences, numbers, strings, None and NumPy arrays or scalars. NaN and infinity
        become null, as in JavaScript.

    Raises:
      TypeError: if `obj` holds something else.
    """
    write_text(path, json.dumps(_plain(obj), indent=2, allow_nan=False) + "\n")


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is not JSON in UTF-8.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error


def lock(file: IO[Any], *, wait: bool = False) -> bool:
    """Locks an open file; the kernel releases the lock when the process ends in any way.

    If the file system has no locks, this logs a warning and returns True.

    Args:
      file: the file, locked until it is closed.
      wait: whether to wait while another process holds the lock.

    Returns:
      False if another process holds the lock.

    Raises:
      OSError: if the lock fails for another reason.
    """
    import fcntl  # missing on Windows, where the rest of this module works

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.getLogger(__name__).warning(
            "the file system of %s has no locks (%s): make sure that no other process uses this "
            "folder at the same time",
            file.name,
            error.strerror,
        )
    return True


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
