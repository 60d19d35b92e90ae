"""FER+: ten people's votes on each face of FER-2013 (Barsoum et al., 2016, arXiv:1608.01041)."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from datasets.fer2013.sources import Face, read_rows
from deep_emotion_jax.errors import UserError

LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTE_NAMES = (*LABELS, "unknown", "NF")
Votes = tuple[int, ...]


def majority(votes: Votes) -> str | None:
    """Returns the expression that wins, as FER+'s published code decides in its majority mode.

    A single vote counts as noise and is dropped; the winner needs more than half of what is left.

    Args:
      votes: ten counts in the order of `VOTE_NAMES`.

    Returns:
      One of `LABELS`; None if nothing has a majority or "unknown" or "NF" (not a face) has.
    """
    votes = tuple(vote if vote > 1 else 0 for vote in votes)
    most = max(votes)
    winner = VOTE_NAMES[votes.index(most)]
    return winner if 2 * most > sum(votes) and winner in LABELS else None


def join(faces: Iterable[Face], source: Path, path: Path) -> Iterator[tuple[Face, Votes]]:
    """Pairs every face with its votes by row order: many image names in the vote file are wrong.

    Args:
      faces: all rows of the pixel file, in order.
      source: the pixel file's path, for errors.
      path: `fer2013new.csv`.

    Raises:
      UserError: the two files differ in length or in a row's Usage, or a vote is malformed.
    """
    with path.open("rb") as file:
        rows = read_rows(file, path, ("Usage", *VOTE_NAMES))
        for face, row in zip_longest(faces, rows):
            if face is None or row is None:
                longer, shorter = (source, path) if row is None else (path, source)
                raise UserError(f"{shorter} has fewer rows than {longer}; download both again.")
            where, values = row
            if values["Usage"] != face.usage:
                raise UserError(
                    f"{where}: Usage {values['Usage']!r}, but {face.usage!r} in the same row of "
                    f"{source}; the files must have the same row order."
                )
            votes = [values[name] for name in VOTE_NAMES]
            if not all(vote.isascii() and vote.isdecimal() and len(vote) < 4 for vote in votes):
                raise UserError(f"{where}: votes {','.join(votes)} are not ten whole numbers.")
            yield face, tuple(map(int, votes))
