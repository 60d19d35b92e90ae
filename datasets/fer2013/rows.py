r"""Maps each image of Kaggle's archive to its row of `fer2013.csv`.

FER+ identifies faces by their row, which the archive does not contain. `rows.csv.xz` was made by
matching every JPEG of the archive to the lossless pixels of the rows: 35,712 rows are found by
their pixels, 175 are guesses among (nearly) identical faces. Check it against both files with

    python -m datasets.fer2013.rows archive.zip fer2013.csv
"""

import argparse
import csv
import functools
import io
import lzma
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.fer2013 import sources
from deep_emotion_jax.errors import UserError

TABLE = Path(__file__).with_name("rows.csv.xz")


class Row(NamedTuple):
    """A row of `fer2013.csv`, from 0; `certain` is False for a guess."""

    number: int
    certain: bool


@functools.cache
def table() -> dict[str, Row]:
    """Returns image name without suffix, such as "Training_10118481" -> row.

    Two names occur in two classes each; they are prefixed with the class, "angry/Training_...".
    """
    with lzma.open(TABLE, "rt", encoding="ascii", newline="") as file:
        return {
            row["name"]: Row(int(row["row"]), row["certain"] == "1") for row in csv.DictReader(file)
        }


def find(key: str) -> Row | None:
    """Returns the row of an example of FER-2013, or None for an unknown name.

    Args:
      key: the builder's key: `row_00042`, or `<class>/<image name>`.
    """
    number = key.removeprefix("row_")
    if number != key:
        return Row(int(number), True) if number.isdecimal() else None
    found = table()
    return found.get(key) or found.get(key.rpartition("/")[2])


def check(archive: Path, pixels: Path, tolerance: float = 12.0) -> dict[str, int]:
    """Compares each image of an archive with the pixels of its row.

    Args:
      archive: Kaggle's archive, as a file or unpacked.
      pixels: `fer2013.csv` or another source with all rows in order.
      tolerance: largest mean difference in grey levels that JPEG compression can cause.

    Returns:
      Counts of "images", "unknown" (not in the table), "other label" and "other pixels".

    Raises:
      UserError: if a file cannot be read.
    """
    rows = list(sources.read(pixels))
    counts = {"images": 0, "unknown": 0, "other label": 0, "other pixels": 0}
    for face in sources.read(archive):
        counts["images"] += 1
        row = find(face.key)
        if row is None or row.number >= len(rows):
            counts["unknown"] += 1
            continue
        other = rows[row.number]
        difference = np.abs(_decoded(face.image) - _decoded(other.image)).mean()
        counts["other label"] += row.certain and face.label != other.label
        counts["other pixels"] += row.certain and difference > tolerance
    return counts


def _decoded(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)), np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Compare an image archive with the rows of FER-2013."
    )
    parser.add_argument("archive", type=Path, help="Kaggle's image archive")
    parser.add_argument("pixels", type=Path, help="fer2013.csv")
    options = parser.parse_args()
    try:
        result = check(options.archive, options.pixels)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(", ".join(f"{count} {name}" for name, count in result.items()))
    sys.exit(int(any(count for name, count in result.items() if name != "images")))
