"""FER+: ten votes for each face of FER-2013 (Barsoum et al., 2016, arXiv:1608.01041)."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.fer2013 import rows
from datasets.fer2013.sources import Face, read_rows
from deep_emotion_jax.data.folders import walk
from deep_emotion_jax.errors import UserError

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTE_NAMES = (*LABELS, "unknown", "NF")
Votes = tuple[int, ...]
T = TypeVar("T")


def majority(votes: Votes) -> str | None:
    """Returns the expression with a majority, as in the majority mode of FER+'s published code.

    Single votes are dropped as noise; a majority is more than half of the remaining votes.

    Args:
      votes: ten counts in the order of `VOTE_NAMES`.

    Returns:
      One of `LABELS`; None without a majority or if "unknown" or "NF" (not a face) has it.
    """
    votes = tuple(vote if vote > 1 else 0 for vote in votes)
    most = max(votes)
    winner = VOTE_NAMES[votes.index(most)]
    return winner if 2 * most > sum(votes) and winner in LABELS else None


def distribution(votes: np.ndarray) -> np.ndarray:
    """Returns the votes as probabilities of the eight expressions.

    Single votes are dropped as in `majority`, and so are votes for "unknown" and "NF". A face
    without other votes gets zeros.

    Args:
      votes: int, (..., 10), in the order of `VOTE_NAMES`.

    Returns:
      float32, (..., 8), in the order of `LABELS`.
    """
    counted = np.where(votes > 1, votes, 0)[..., : len(LABELS)]
    return (counted / np.maximum(counted.sum(-1, keepdims=True), 1)).astype(np.float32)


def find(path: Path) -> Path:
    """Returns the path of `fer2013new.csv`, anywhere below a folder or beside a file.

    Raises:
      UserError: if it does not exist.
    """
    folder = path if path.is_dir() else path.parent
    beside = folder / "fer2013new.csv"
    if beside.is_file():
        return beside
    if path.is_dir():
        for file in walk(path):
            if file.name == "fer2013new.csv" and file.is_file():
                return file
    raise UserError(f"{beside} does not exist; get it from https://github.com/microsoft/FERPlus.")


def votes_of(keys: Sequence[str], path: Path) -> np.ndarray:
    """Returns the votes for examples of the default config, from any source.

    Args:
      keys: keys of FER-2013's examples.
      path: `fer2013new.csv`.

    Returns:
      int64, (len(keys), 10); zeros if the row is a guess or the key is unknown.

    Raises:
      UserError: if the file is malformed or lacks a row.
    """
    table = [votes for _, _, votes in _read(path)]
    votes = np.zeros((len(keys), len(VOTE_NAMES)), np.int64)
    for place, key in enumerate(keys):
        row = rows.find(key)
        if row is not None and row.certain:
            votes[place] = _row(table, row.number, path)
    return votes


def join_by_name(faces: Iterable[Face], source: Path, path: Path) -> Iterator[tuple[Face, Votes]]:
    """Pairs every face of Kaggle's archive with its votes, by `rows.csv.xz`.

    Args:
      faces: any images of the archive.
      source: the archive's path, for errors.
      path: `fer2013new.csv`.

    Yields:
      The face and its votes; zeros, which have no majority, if its row is a guess.

    Raises:
      UserError: if an image is not in the archive, or the file of votes is malformed.
    """
    table: list[tuple[str, str, Votes]] = []
    for face in faces:
        row = rows.find(face.key)
        if row is None:
            raise UserError(
                f"{source}: FER+ identifies faces by their row in the challenge's file, which is "
                f"unknown for {face.key}; give fer2013.tar.gz, fer2013.csv or icml_face_data.csv "
                "instead."
            )
        table = table or list(_read(path))
        where, usage, votes = _row(table, row.number, path)
        _check_usage(where, usage, face, source)
        yield face, votes if row.certain else (0,) * len(votes)


def join(faces: Iterable[Face], source: Path, path: Path) -> Iterator[tuple[Face, Votes]]:
    """Pairs every face with its votes by row order, as many image names in the vote file are wrong.

    Args:
      faces: all rows of the pixel file, in order.
      source: the pixel file's path, for errors.
      path: `fer2013new.csv`.

    Raises:
      UserError: if the files differ in length or in a row's Usage, or a vote is malformed.
    """
    for face, row in zip_longest(faces, _read(path)):
        if face is None or row is None:
            longer, shorter = (source, path) if row is None else (path, source)
            raise UserError(f"{shorter} has fewer rows than {longer}; download both again.")
        where, usage, votes = row
        _check_usage(where, usage, face, source)
        yield face, votes


def _read(path: Path) -> Iterator[tuple[str, str, Votes]]:
    """Yields the location of each row of `fer2013new.csv`, its Usage and its votes."""
    with path.open("rb") as file:
        for where, values in read_rows(file, path, ("Usage", *VOTE_NAMES)):
            votes = [values[name] for name in VOTE_NAMES]
            if not all(vote.isascii() and vote.isdecimal() and len(vote) < 4 for vote in votes):
                raise UserError(f"{where}: votes {','.join(votes)} are not ten whole numbers.")
            yield where, values["Usage"], tuple(map(int, votes))


def _row(table: Sequence[T], number: int, path: Path) -> T:
    if number >= len(table):
        raise UserError(f"{path} has fewer rows than FER-2013; download it again.")
    return table[number]


def _check_usage(where: str, usage: str, face: Face, source: Path) -> None:
    if usage != face.usage:
        raise UserError(
            f"{where}: Usage {usage!r}, but {face.usage!r} in the same row of {source}; the files "
            "must have the same row order."
        )
