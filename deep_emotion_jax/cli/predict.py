"""Names the expressions of the faces in pictures, videos, or before the webcam.

PATH is a picture, a video, a folder (with all below it) or a pattern such as 'holiday/**/*.jpg'.
What cannot be read is reported and skipped.

exit codes: 0 all was read, 1 something could not be read, 2 a mistake in the arguments.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    from deep_emotion_jax.data.detectors import Detector
    from deep_emotion_jax.data.pictures import Picture
    from deep_emotion_jax.inference.predictor import Prediction


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--webcam", action="store_true", help="watch the webcam until Ctrl-C")
    parser.add_argument(
        "--model",
        default="deep_emotion_wide.fer2013",
        metavar="NAME_OR_PATH",
        help="a network of the package or a .safetensors file (default: %(default)s)",
    )
    parser.add_argument(
        "--detector",
        choices=("builtin", "yunet", "none"),
        default="builtin",
        help="what finds the faces: the YuNet of the package, another YuNet file run by OpenCV, or "
        "none for pictures that are faces already (default: %(default)s)",
    )
    parser.add_argument("--detector-model", metavar="PATH", help="file of --detector yunet")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per picture and line")
    form.add_argument("--csv", action="store_true", help="one row per face")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="write annotated pictures there: boxes, probabilities, the sampler's region in "
        "the face, and what matters for the answer",
    )


def run(arguments: argparse.Namespace) -> int:
    """Predicts; see the module's docstring for the exit codes.

    Raises:
      UserError: for arguments that do not go together, a network or detector that cannot be loaded,
        a webcam that cannot be read, or a folder that cannot be written.
    """
    if bool(arguments.paths) == arguments.webcam:
        raise UserError("give either a PATH or --webcam")
    if (arguments.detector == "yunet") != (arguments.detector_model is not None):
        raise UserError("--detector yunet and --detector-model PATH go together")

    from tqdm import tqdm

    from deep_emotion_jax.data import pictures
    from deep_emotion_jax.inference import drawing
    from deep_emotion_jax.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(arguments.model, _detector(arguments))
    lines = _csv_lines if arguments.csv else _json_lines if arguments.json else _table_lines
    unreadable = saved = 0

    def report(error: UserError) -> None:
        nonlocal unreadable
        unreadable += 1
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    predictions: Iterator[Prediction]
    if arguments.webcam:
        # Nobody before a camera waits for a batch to fill.
        predictions = (next(predictor.stream([picture])) for picture in pictures.webcam())
    else:
        predictions = predictor.stream(pictures.read(arguments.paths, report))
    write: Callable[[str], None] = lambda line: tqdm.write(line, file=sys.stdout)  # noqa: E731
    for line in lines(None, predictor.classes):
        write(line)
    for prediction in tqdm(predictions, unit=" pictures", disable=None, leave=False):
        for line in lines(prediction, predictor.classes):
            write(line)
        if arguments.save and prediction.faces:
            maps = [predictor.importance(face) for face in prediction.faces]
            drawing.save(prediction, maps, drawing.path_in(arguments.save, prediction.picture))
            saved += 1
    if arguments.save:
        print(f"{saved} annotated pictures in {arguments.save}", file=sys.stderr)
    if unreadable:
        print(f"{unreadable} could not be read and were skipped", file=sys.stderr)
    return 1 if unreadable else 0


def _detector(arguments: argparse.Namespace) -> "Detector":
    from deep_emotion_jax.data.detectors import FaceDetector, YuNetDetector, whole_picture

    if arguments.detector == "yunet":
        return YuNetDetector(arguments.detector_model)
    return whole_picture if arguments.detector == "none" else FaceDetector()


# Each form of output is a function of a prediction, or of None for what comes before the first.


def _table_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    width = max(len(name) for name in (*classes, "expression"))
    if prediction is None:
        yield f"{'expression':{width}}  {'prob.':>6}  {'left':>5}  {'top':>5}  {'side':>5}  picture"
        return
    name = _name(prediction.picture)
    # Names go to a terminal: no control characters.
    name = name if name.isprintable() else ascii(name)[1:-1]
    for face in prediction.faces:
        left, top, side = (f"{round(value):5}" for value in face.box)
        share = f"{face.probabilities[face.expression]:.1%}"
        yield f"{face.expression:{width}}  {share:>6}  {left}  {top}  {side}  {name}"
    if not prediction.faces:
        yield f"{'(no face)':{width}}  {'':27}  {name}"


def _json_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
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
                    "expression": face.expression,
                    "probabilities": face.probabilities,
                    "box": face.box._asdict(),
                    "region": None if face.region is None else face.region.tolist(),
                }
                for face in prediction.faces
            ],
        }
    )


def _csv_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    if prediction is None:
        yield _csv_line(
            ["picture", "frame", "seconds", "left", "top", "side", "expression", *classes]
        )
        return
    picture = prediction.picture
    # Bytes of a name that are not UTF-8 cannot be printed.
    source = picture.source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    where = [source, picture.frame, picture.seconds]
    for face in prediction.faces:
        yield _csv_line([*where, *face.box, face.expression, *face.probabilities.values()])
    if not prediction.faces:
        yield _csv_line(where + [None] * (4 + len(classes)))


def _csv_line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().removesuffix("\n")


def _name(picture: "Picture") -> str:
    if picture.seconds is not None:
        return f"{picture.source} at {picture.seconds:.2f} s"
    return picture.source if picture.frame is None else f"{picture.source} {picture.frame}"
