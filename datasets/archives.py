"""Finds and reads raw files in folders and zip archives, without extracting them to disk."""

import contextlib
import errno
import functools
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from deep_emotion_jax.data.folders import is_hidden, walk
from deep_emotion_jax.errors import UserError

MAX_FILE_BYTES = 1 << 20

# Errors of zipfile for damaged archives. RuntimeError: encrypted, or (NotImplementedError) an
# unknown compression; OSError: bzip2, and offsets outside the file.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError),
)


@contextlib.contextmanager
def open_files(root: Path, *kinds: tuple[str, ...]) -> Iterator[dict[Path, Callable[[], bytes]]]:
    """Finds files below a folder or in a zip archive.

    Archives in a folder are searched for the kinds that have no unpacked file. Links are followed;
    hidden files and macOS's `__MACOSX` folders are skipped, see `folders.walk`.

    Args:
      root: a folder or a zip archive.
      *kinds: groups of suffixes in lower case, such as `(".jpg", ".jpeg")`.

    Yields:
      Path -> a function that returns the content while this context is open, sorted by path. The
      path of an archive's member is `archive / member`.

    Raises:
      UserError: if an archive is damaged, also when a member is read, or a file is larger than
        `MAX_FILE_BYTES`.
    """
    loose = [path for path in walk(root) if path.is_file()] if root.is_dir() else []
    found: dict[Path, Callable[[], bytes]] = {
        path: functools.partial(_read_file, path) for path in _select(loose, kinds, root)
    }
    packed = [kind for kind in kinds if not any(path.name.lower().endswith(kind) for path in found)]
    archives = _select(loose, [(".zip",)], root) if root.is_dir() else [root]
    with contextlib.ExitStack() as stack:
        for path in archives if packed else ():
            with _zip_errors(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
            # Some Windows programs use backslashes as separators.
            members = {
                Path(f"{path}/{name.replace(chr(92), '/')}"): name for name in archive.namelist()
            }
            for member in _select(members, packed, path):
                found[member] = functools.partial(_read_member, archive, members[member])
        yield dict(sorted(found.items()))


def read_files(
    root: Path, endings: tuple[str, ...] = (".jpg", ".jpeg", ".png")
) -> Iterator[tuple[Path, bytes]]:
    """Yields path and content of the files that `open_files` finds, with its errors."""
    with open_files(root, endings) as files:
        for path, read in files.items():
            yield path, read()


@contextlib.contextmanager
def open_member(path: Path, *names: str) -> Iterator[tuple[Path, IO[bytes]] | None]:
    """Opens the first member of a zip archive that has one of these file names, of any size.

    Yields:
      Its path, `archive / member`, and a stream of its content; None if there is no such member.

    Raises:
      UserError: if the archive is damaged, also while the stream is read.
    """
    with _zip_errors(path), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if Path(member.replace("\\", "/")).name.lower() in names:
                with archive.open(member) as file:
                    yield path / member, file
                return
    yield None


def by_key(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    """Maps the keys of examples to their files.

    Raises:
      UserError: if two files have the same key.
    """
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(key(path), path)
        if other is not path:
            raise UserError(f"{path} is a duplicate of {other}; remove one of them.")
    return found


def nothing_found(path: Path, expected: str, dataset: str) -> UserError:
    """Returns the error for a folder or an archive without files of a dataset.

    Args:
      path: the folder or archive.
      expected: the expected file names.
      dataset: the dataset's folder in `datasets`.
    """
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
    else:
        with _zip_errors(path), zipfile.ZipFile(path) as archive:
            names = {name.replace("\\", "/").split("/")[0] for name in archive.namelist()}
    found = ", ".join(sorted(names)[:8]) or "nothing"
    return UserError(
        f"{path} has no {expected} (found: {found}); the README of datasets/{dataset} says where "
        "to get them."
    )


def _select(paths: Iterable[Path], kinds: Iterable[tuple[str, ...]], root: Path) -> Iterator[Path]:
    endings = tuple(ending for kind in kinds for ending in kind)
    for path in paths:
        parts = path.relative_to(root).parts
        hidden = any(is_hidden(part) for part in parts)
        if path.name.lower().endswith(endings) and not hidden:
            yield path


@contextlib.contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _ZIP_ERRORS as error:
        # Other system errors concern the path or the disk, not the content.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(
            f"{path} is not a complete zip archive ({error}); download it again."
        ) from error


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _read_small(file, path)


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    path = Path(str(archive.filename))
    with _zip_errors(path), archive.open(name) as file:
        return _read_small(file, path / name)


def _read_small(file: IO[bytes], path: Path) -> bytes:
    # Reads one byte past the limit, because an archive may state a wrong size for its member.
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_FILE_BYTES} bytes, too large for this dataset."
        )
    return data
