"""Detection and classification of faces in photographs: python -m benchmarks.photos DIR.

DIR has pictures and labels.csv with the columns `file`, `expression` (empty if unknown) and,
optionally, `faces` (number of faces, 1 if absent). Prints detections, accuracy and confidence by
expression, size, roll and light of the face; then for altered copies of the pictures with one face:
turned, dark, small, saved again as JPEG, cropped, and scaled.
"""

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from deep_emotion_jax.constants import DEFAULT_MODEL
from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.data.pictures import read_picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.metrics import evaluate
from deep_emotion_jax.inference.predictor import Face, Predictor

SMALL = 30
SIZES, ROLLS, LIGHTS = (0, 50, 100, 200, 400), (0, 5, 10, 20), (0, 60, 90, 120, 150)


@dataclass
class Photo:
    """A labelled picture and its detected faces."""

    file: str
    pixels: np.ndarray
    expression: str
    count: int
    faces: tuple[Face, ...] = ()
    seconds: float = 0.0


def main() -> None:
    """Print all tables."""
    arguments = _arguments()
    try:
        photos = read_photos(arguments.folder)
        predictor = Predictor.from_pretrained(arguments.model)
    except UserError as error:
        sys.exit(f"error: {error}")
    for photo in photos:  # An untimed pass, which compiles.
        predictor.predict(photo.pixels)
    for photo in photos:
        start = time.perf_counter()
        photo.faces = predictor.predict(photo.pixels).faces
        photo.seconds = time.perf_counter() - start
    print(_found(photos), "\n")
    labelled = [photo for photo in photos if photo.expression in predictor.classes and photo.faces]
    absent = sum(photo.expression in predictor.classes for photo in photos) - len(labelled)
    if labelled:
        print(_right(labelled, absent, predictor.classes), "\n")
        print(_groups(labelled), "\n")
    if arguments.copies:
        print(_copies([photo for photo in photos if photo.count == 1 and photo.faces], predictor))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_PATH")
    parser.add_argument("--no-copies", dest="copies", action="store_false")
    return parser.parse_args()


def read_photos(folder: Path) -> list[Photo]:
    """Read the pictures that labels.csv lists.

    Raises:
      UserError: if labels.csv or a picture cannot be read.
    """
    path = folder / "labels.csv"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    photos = []
    for number, row in enumerate(rows, 1):
        name, count = row.get("file"), row.get("faces") or "1"
        if not name or not (count.isdecimal() and len(count) < 6):
            raise UserError(
                f"{path}, row {number}: give the name of a picture in the column 'file' and, if "
                "there is a column 'faces', a number in it"
            )
        photos.append(
            Photo(name, read_picture(folder / name), row.get("expression") or "", int(count))
        )
    return photos


def _found(photos: list[Photo]) -> str:
    """Tabulates found and surplus faces; the counts of groups are often approximate."""
    rows = []
    for name, chosen in (
        ("one face", [p for p in photos if p.count == 1]),
        ("several faces", [p for p in photos if p.count > 1]),
        ("no face", [p for p in photos if p.count == 0]),
    ):
        pairs = [(photo.count, len(photo.faces)) for photo in chosen]
        rows.append(
            [
                name,
                len(chosen),
                sum(count for count, _ in pairs),
                sum(min(pair) for pair in pairs),
                sum(max(0, found - count) for count, found in pairs),
                1000 * float(np.median([photo.seconds for photo in chosen] or [0])),
            ]
        )
    header = ["pictures with", "pictures", "faces", "found", "more than that", "ms (median)"]
    return tabulate(rows, header, floatfmt=".0f")


def _right(photos: list[Photo], absent: int, classes: tuple[str, ...]) -> str:
    """Tabulates the accuracy of the largest face by expression and over all, with calibration."""
    rows = [
        [name, len(chosen), *_score(chosen)]
        for name in classes
        if (chosen := [photo for photo in photos if photo.expression == name])
    ]
    rows.append(["all found", len(photos), *_score(photos)])
    shares = np.array([list(photo.faces[0].probabilities.values()) for photo in photos])
    labels = np.array([classes.index(photo.expression) for photo in photos])
    metrics = evaluate(np.log(shares.clip(1e-9)), labels)
    right = sum(map(_is_right, photos))
    return "\n".join(
        [
            tabulate(rows, ["expression", "pictures", "right", "%", "mean probability"]),
            f"right of all, {absent} not found: {right} of {len(photos) + absent} "
            f"({right / (len(photos) + absent):.1%}); calibration error "
            f"{metrics.calibration_error:.3f}",
        ]
    )


def _groups(photos: list[Photo]) -> str:
    """Tabulates the accuracy by properties of the face and by its notes."""
    measures: dict[str, tuple[Callable[[Photo], float], tuple[int, ...]]] = {
        "side, pixels": (lambda photo: photo.faces[0].box.side, SIZES),
        "roll, degrees": (lambda photo: _roll(photo.faces[0]), ROLLS),
        "light, mean grey": (lambda photo: float(photo.faces[0].pixels.mean()), LIGHTS),
    }
    rows = []
    for name, (measure, edges) in measures.items():
        for low, high in zip(edges, (*edges[1:], float("inf")), strict=True):
            chosen = [photo for photo in photos if low <= measure(photo) < high]
            if chosen:
                rows.append([name, f"{low} to {high}", len(chosen), *_score(chosen)])
    for note in ("", *sorted({note for photo in photos for note in photo.faces[0].notes})):
        chosen = [p for p in photos if (note in p.faces[0].notes if note else not p.faces[0].notes)]
        if chosen:
            rows.append(["note", note or "none", len(chosen), *_score(chosen)])
    return tabulate(rows, ["by", "from", "pictures", "right", "%", "mean probability"])


def _copies(photos: list[Photo], predictor: Predictor) -> str:
    """Tabulates changes of predictions for altered copies of the photographs."""
    rows = []
    for name, versions in _versions().items():
        found, right, labelled, moved, changed = 0, 0, 0, [], 0
        for photo in photos:
            for alter, back in versions:
                faces = predictor.predict(alter(photo.pixels)).faces
                known = photo.expression in predictor.classes
                labelled += known
                if not faces:
                    continue
                found += 1
                right += known and faces[0].expression == photo.expression
                changed += faces[0].expression != photo.faces[0].expression
                if back is not None:
                    before = photo.faces[0].box
                    moved.append(1 - _overlap(before, back(faces[0].box)))
        tries = len(photos) * len(versions)
        rows.append(
            [
                name,
                f"{found} of {tries}",
                f"{right / labelled:.1%}" if labelled else "",
                f"{changed / max(found, 1):.1%}",
                f"{np.mean(moved):.3f}" if moved else "",
            ]
        )
    header = ["altered copies", "found", "right of labelled", "answer changes", "1 - IoU of boxes"]
    return tabulate(rows, header)


Version = tuple[Callable[[np.ndarray], np.ndarray], Callable[[Box], Box] | None]


def _versions() -> dict[str, list[Version]]:
    def turned(degrees: int) -> Version:
        grey = {"expand": True, "fillcolor": (128, 128, 128)}
        return lambda p: _image(Image.fromarray(p).rotate(degrees, 3, **grey)), None

    return {
        "as it is": [(lambda p: p, lambda box: box)],
        "turned by 20 degrees": [turned(20), turned(-20)],
        "turned by 30 degrees": [turned(30), turned(-30)],
        "dark (15 %, noise of 1.5)": [(_dark, None)],
        f"longer side {SMALL * 8}": [(_small, None)],
        "JPEG again, quality 75": [(compressed(75), lambda box: box)],
        "two pixels cut off": [
            (lambda p: p[2:, 2:], lambda box: Box(box.left + 2, box.top + 2, box.side))
        ],
        "95 % of the size": [
            (lambda p: _scaled(p, 0.95), lambda box: Box(*(value / 0.95 for value in box)))
        ],
    }


def _image(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def _scaled(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = [max(1, round(length * factor)) for length in pixels.shape[1::-1]]
    return _image(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _small(pixels: np.ndarray) -> np.ndarray:
    return _scaled(pixels, min(1, SMALL * 8 / max(pixels.shape)))


def _dark(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1.5, pixels.shape)
    return (pixels * 0.15 + noise).clip(0, 255).round().astype(np.uint8)


def compressed(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a change that saves a picture as JPEG and reads it again."""

    def change(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return _image(Image.open(file))

    return change


def _score(photos: Iterable[Photo]) -> list[float]:
    """Returns number and percentage of right answers, and the mean probability of the answers."""
    photos = list(photos)
    right = sum(map(_is_right, photos))
    sure = np.mean([max(photo.faces[0].probabilities.values()) for photo in photos])
    return [right, round(100 * right / len(photos), 1), round(float(sure), 3)]


def _is_right(photo: Photo) -> bool:
    return photo.faces[0].expression == photo.expression


def _roll(face: Face) -> float:
    if face.landmarks is None:
        return 0.0
    x, y = face.landmarks[1] - face.landmarks[0]
    return float(abs(np.degrees(np.arctan2(y, x))))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.left + a.side, b.left + b.side) - max(a.left, b.left)
    height = min(a.top + a.side, b.top + b.side) - max(a.top, b.top)
    inside = max(0.0, width) * max(0.0, height)
    return inside / (a.side**2 + b.side**2 - inside)


if __name__ == "__main__":
    main()
