"""Formats of the lines that `deep-emotion predict` prints: a table, JSON or CSV.

Each is a function of a prediction, or of None for the header, and of the classes.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deep_emotion_jax.data.pictures import Picture
    from deep_emotion_jax.inference.predictor import Prediction

Format = Callable[["Prediction | None", tuple[str, ...]], Iterator[str]]


def table_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    """A text table, one line per face."""
    width = max(len(name) for name in (*classes, "expression"))
    if prediction is None:
        yield f"{'expression':{width}}  {'prob.':>6}  {'left':>5}  {'top':>5}  {'side':>5}  picture"
        return
    name = _name(prediction.picture)
    # Control characters must not reach the terminal.
    name = name if name.isprintable() else ascii(name)[1:-1]
    for face in prediction.faces:
        left, top, side = (f"{round(value):5}" for value in face.box)
        share = f"{face.probabilities[face.expression]:.1%}"
        notes = f"  ({', '.join(face.notes)})" if face.notes else ""
        track = "" if face.track is None else f", track {face.track}"
        yield f"{face.expression:{width}}  {share:>6}  {left}  {top}  {side}  {name}{track}{notes}"
    if not prediction.faces:
        yield f"{'(no face)':{width}}  {'':27}  {name}"


def json_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    """One JSON object per picture; no header."""
    if prediction is None:
        return
    picture = prediction.picture
    height, width, _ = picture.pixels.shape
    yield json.dumps(
        {
            "picture": picture.source,
            "frame": picture.frame,
            "seconds": picture.seconds,
            "width": width,
            "height": height,
            "faces": [
                {
                    "track": face.track,
                    "expression": face.expression,
                    "probabilities": face.probabilities,
                    "box": face.box._asdict(),
                    "region": None if face.region is None else face.region.tolist(),
                    "score": face.score,
                    "roll": face.roll,
                    "landmarks": None if face.landmarks is None else face.landmarks.tolist(),
                    "notes": face.notes,
                }
                for face in prediction.faces
            ],
        }
    )


def csv_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    """CSV, one row per face; a picture without faces has one row."""
    if prediction is None:
        where = ("picture", "frame", "seconds", "left", "top", "side", "expression")
        yield _csv_line([*where, *classes, "score", "roll", "notes", "track"])
        return
    picture = prediction.picture
    # Bytes of a name that are not valid UTF-8 cannot be printed.
    source = picture.source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    place = [source, picture.frame, picture.seconds]
    for face in prediction.faces:
        cells = [*place, *face.box, face.expression, *face.probabilities.values()]
        yield _csv_line([*cells, face.score, face.roll, " ".join(face.notes), face.track])
    if not prediction.faces:
        yield _csv_line(place + [None] * (8 + len(classes)))


def _csv_line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().removesuffix("\n")


def _name(picture: "Picture") -> str:
    return picture.source + ("" if picture.seconds is None else f" at {picture.seconds:.2f} s")
