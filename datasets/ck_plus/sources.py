"""Reads labelled sequences from the two distributed forms of CK+: the original and CK+48."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import NamedTuple

from datasets import archives
from deep_emotion_jax.errors import UserError

# FER-2013's names and order, then contempt, which FER-2013 lacks, and neutral, which CK+ does not
# label.
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "contempt", "neutral")
# The codes in the original's label files, from 1; 0 would be neutral, which does not occur.
_CODES = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
_FOLDERS = {
    "anger": "angry",
    "contempt": "contempt",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "sadness": "sad",
    "surprise": "surprise",
}
_NAME = re.compile(r"S\d{3}_\d{3}_\d{8}(?!\d)")
_EXPECTED = "cohn-kanade-images/S###/###/*.png or CK+48/<emotion>/S###_###_########.png"

Read = Callable[[], bytes]


class Frame(NamedTuple):
    """One picture; `key` is its file name without suffix, `landmarks` may be missing."""

    key: str
    path: Path
    read: Read
    landmarks: tuple[Path, Read] | None


class Sequence(NamedTuple):
    """A labelled sequence.

    Attributes:
      name: such as "S010_004".
      subject: "S010".
      label: one of LABELS.
      frames: the frames in order: all of the original, or those in the folder of the label.
      neutral: the first frame, or None if the source does not have it.
    """

    name: str
    subject: str
    label: str
    frames: list[Frame]
    neutral: Frame | None


class Source(NamedTuple):
    """All labelled sequences, sorted; `is_cropped` for the form of CK+48 with class folders."""

    sequences: list[Sequence]
    is_cropped: bool


@contextlib.contextmanager
def open_source(path: Path, with_neutral: bool = False) -> Iterator[Source]:
    """Finds the labelled sequences; frames can be read while the context is open.

    Args:
      path: a folder, with or without archives, or an archive.
      with_neutral: whether to accept a class folder of neutral first frames.

    Raises:
      UserError: if no form or both forms are found, a label is malformed, or a file is duplicated.
    """
    kinds = ((".png", ".jpg", ".jpeg"), ("_emotion.txt",), ("_landmarks.txt",))
    with archives.open_files(path, *kinds) as found:
        frames, labels, landmarks = (_by_name(found, endings) for endings in kinds)
        if not frames:
            raise archives.nothing_found(path, _EXPECTED, "ck_plus")
        originals = {name for name, (file, _) in frames.items() if _is_original(file, name)}
        if originals and len(originals) < len(frames):
            other = next(file for name, (file, _) in frames.items() if name not in originals)
            raise UserError(
                f"{path} has both CK+48, such as {other}, and the original frames; give the path "
                "of one of them."
            )
        if originals and not labels:
            raise UserError(
                f"{path} has the frames but no Emotion/S###/###/*_emotion.txt; put the Emotion "
                "folder or Emotion_labels.zip beside them."
            )
        if originals:
            label_of, neutral = _labels_of_files(labels, frames), set()
        else:
            neutral = {
                name for name, (file, _) in frames.items() if with_neutral and _is_neutral(file)
            }
            apexes = {name: file for name, file in frames.items() if name not in neutral}
            label_of = _labels_of_folders(apexes)
        sequences = _sequences(frames, label_of, landmarks, neutral if not originals else None)
        yield Source(sequences, is_cropped=not originals)


def _is_neutral(path: Path) -> bool:
    return path.parent.name.lower() == "neutral"


def _by_name(found: Mapping[Path, Read], endings: tuple[str, ...]) -> dict[str, tuple[Path, Read]]:
    """Returns frame name -> file; files that are not named after a frame are skipped."""
    wanted = (p for p in found if p.name.lower().endswith(endings) and _NAME.match(p.name))
    paths = archives.by_key(wanted, lambda path: path.name[: len("S###_###_########")])
    return {name: (path, found[path]) for name, path in paths.items()}


def _sequence(name: str) -> str:
    return name[: len("S###_###")]


def _is_original(path: Path, name: str) -> bool:
    return "_".join(path.parts[-3:-1]) == _sequence(name)


def _label(path: Path, read: Read) -> str:
    text = read().decode("ascii", errors="replace").strip()
    try:
        code = float(text)  # such as 3.0000000e+00
    except ValueError:
        code = 0
    if code not in range(1, len(_CODES) + 1):
        raise UserError(f"{path} has {text[:40]!r}, not a number from 1 to {len(_CODES)}.")
    return _CODES[int(code) - 1]


def _labels_of_files(
    labels: Mapping[str, tuple[Path, Read]], frames: Mapping[str, tuple[Path, Read]]
) -> dict[str, str]:
    for name, (path, _) in labels.items():
        if name not in frames:  # the last frame of its sequence
            raise UserError(
                f"{path} labels the frame {name}.png, which is missing; get all of "
                "cohn-kanade-images."
            )
    return {_sequence(name): _label(path, read) for name, (path, read) in labels.items()}


def _labels_of_folders(frames: Mapping[str, tuple[Path, Read]]) -> dict[str, str]:
    labels: dict[str, tuple[str, Path]] = {}
    for name, (path, _) in frames.items():
        label = _FOLDERS.get(path.parent.name.lower())
        if label is None:
            hint = "; the config neutral8 reads neutral faces" if _is_neutral(path) else ""
            raise UserError(
                f"{path} is in folder {path.parent.name!r}, neither in one of "
                f"{', '.join(_FOLDERS)} nor, as in the original, in {name[:4]}/{name[5:8]}{hint}."
            )
        before, other = labels.setdefault(_sequence(name), (label, path))
        if before != label:
            raise UserError(f"{path} and {other} put one sequence in two classes; remove one.")
    return {name: label for name, (label, _) in labels.items()}


def _sequences(
    frames: Mapping[str, tuple[Path, Read]],
    label_of: Mapping[str, str],
    landmarks: Mapping[str, tuple[Path, Read]],
    neutral: Set[str] | None,
) -> list[Sequence]:
    """Groups frames by sequence; `neutral` names the neutral frames, None for all first frames."""
    grouped: dict[str, list[Frame]] = {name: [] for name in sorted(label_of)}
    first: dict[str, Frame] = {}
    for name in sorted(frames):
        if _sequence(name) in grouped:
            frame = Frame(name, *frames[name], landmarks.get(name))
            if neutral is None or name in neutral:
                first.setdefault(_sequence(name), frame)
            if neutral is None or name not in neutral:
                grouped[_sequence(name)].append(frame)
    return [
        Sequence(name, name[: len("S###")], label_of[name], members, first.get(name))
        for name, members in grouped.items()
    ]
