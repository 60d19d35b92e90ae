"""Walks folders that hold symbolic links, hidden files and files of operating systems."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    root: str | os.PathLike[str], onerror: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Yields the files below a folder by name, those of a folder before those of its subfolders.

    Symbolic links are followed, except to a folder that contains `root`, and each folder is visited
    once. Hidden files and folders and macOS's `__MACOSX` are left out.

    Args:
      root: the folder.
      onerror: called with the error for each folder that cannot be listed.
    """
    top = os.path.realpath(root)
    seen = {top}
    for parent, folders, names in os.walk(root, onerror=onerror, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(parent, name))
            around = os.path.commonpath([top, real]) == real
            if not is_hidden(name) and real not in seen and not around:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            if not is_hidden(name):
                yield Path(parent, name)


def is_hidden(name: str) -> bool:
    """Whether this names a hidden file or folder, such as ".git", "._1.jpg" and "__MACOSX"."""
    return name.startswith((".", "__MACOSX"))
