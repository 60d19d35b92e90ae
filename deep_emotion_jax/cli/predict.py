"""Name the expressions of the faces in pictures, videos, or in front of the webcam.

PATH is a picture, a video, a folder (with all its subfolders) or a pattern such as
'holiday/**/*.jpg'. Files that cannot be read are reported and skipped.

Example:
  deep-emotion predict photo.jpg holiday --save out

exit codes: 0 all files were read, 1 some could not be read, 2 a mistake in the arguments.
"""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deep_emotion_jax.cli.options import add_device, network, path
from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    from deep_emotion_jax.data.detectors import Detector
    from deep_emotion_jax.data.pictures import Picture
    from deep_emotion_jax.inference.predictor import Prediction, Predictor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="pictures, videos, folders")
    parser.add_argument("--webcam", action="store_true", help="watch the webcam until Ctrl-C")
    parser.add_argument(
        "--model",
        type=network,
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
    parser.add_argument(
        "--detector-model", type=path, metavar="PATH", help="ONNX file of --detector yunet"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print one JSON object per picture (default: a table)"
    )
    form.add_argument("--csv", action="store_true", help="print CSV, one row per face")
    parser.add_argument(
        "--save",
        type=path,
        metavar="DIR",
        help="write annotated pictures there: boxes, probabilities, the attended region, and what "
        "the answer depends on (default: none)",
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Predict; see the module's docstring for the exit codes.

    Raises:
      UserError: for arguments that do not go together, a network or detector that cannot be loaded,
        a webcam that cannot be read, or a folder that cannot be written.
    """
    _check(arguments)
    from tqdm import tqdm

    from deep_emotion_jax.data import pictures
    from deep_emotion_jax.inference.predictor import Predictor
    from deep_emotion_jax.runtime.devices import choose_devices, use_compilation_cache

    choose_devices(arguments.device)
    use_compilation_cache()
    predictor = Predictor.from_pretrained(arguments.model, _detector(arguments))
    unreadable = 0

    def report(error: UserError) -> None:
        nonlocal unreadable
        unreadable += 1
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    predictions: Iterable[Prediction]
    if arguments.webcam:
        # One picture at a time: a batch would answer late.
        predictions = (next(predictor.stream([picture])) for picture in pictures.webcam())
    else:
        predictions = predictor.stream(pictures.read(arguments.paths, report))
    saved = _print_and_save(
        tqdm(predictions, unit=" pictures", disable=None, leave=False), predictor, arguments
    )
    if arguments.save:
        count = f"{len(saved)} annotated picture{'' if len(saved) == 1 else 's'}"
        where = saved[0] if len(saved) == 1 else arguments.save
        print(f"{count}: {where}", file=sys.stderr)
    if unreadable:
        print(f"{unreadable} could not be read and were skipped", file=sys.stderr)
    return 1 if unreadable else 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.paths) == arguments.webcam:
        raise UserError("give either a PATH or --webcam")
    if (arguments.detector == "yunet") != (arguments.detector_model is not None):
        raise UserError("--detector yunet and --detector-model PATH go together")
    for given in arguments.paths:
        if re.match(r"[a-z]+://", given, re.IGNORECASE):
            raise UserError(f"{given} is a URL: download the picture and give the path of the file")


def _print_and_save(
    predictions: "Iterable[Prediction]", predictor: "Predictor", arguments: argparse.Namespace
) -> list[Path]:
    """Print every prediction, and return the paths of the annotated pictures."""
    from tqdm import tqdm

    from deep_emotion_jax.inference import drawing

    lines = _csv_lines if arguments.csv else _json_lines if arguments.json else _table_lines
    write: Callable[[str], None] = lambda line: tqdm.write(line, file=sys.stdout)  # noqa: E731
    saved: list[Path] = []
    faceless = 0
    for i, prediction in enumerate(predictions):
        if i == 0:
            for line in lines(None, predictor.classes):
                write(line)
        for line in lines(prediction, predictor.classes):
            write(line)
        faceless += not prediction.faces
        if arguments.save and prediction.faces:
            maps = [predictor.importance(face) for face in prediction.faces]
            saved.append(drawing.path_in(arguments.save, prediction.picture))
            drawing.save(prediction, maps, saved[-1])
    if faceless and not arguments.webcam:
        print(
            f"no face found in {faceless} picture{'' if faceless == 1 else 's'}; "
            "if they are cut-out faces, use --detector none",
            file=sys.stderr,
        )
    return saved


def _detector(arguments: argparse.Namespace) -> "Detector":
    from deep_emotion_jax.data.detectors import FaceDetector, YuNetDetector, whole_picture

    if arguments.detector == "yunet":
        return YuNetDetector(arguments.detector_model)
    return whole_picture if arguments.detector == "none" else FaceDetector()


# Each output format is a function of a prediction, or of None for the header.


def _table_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    width = max(len(name) for name in (*classes, "expression"))
    if prediction is None:
        yield f"{'expression':{width}}  {'prob.':>6}  {'left':>5}  {'top':>5}  {'side':>5}  picture"
        return
    name = _name(prediction.picture)
    # No control characters reach the terminal.
    name = name if name.isprintable() else ascii(name)[1:-1]
    for face in prediction.faces:
        left, top, side = (f"{round(value):5}" for value in face.box)
        share = f"{face.probabilities[face.expression]:.1%}"
        notes = f"  ({', '.join(face.notes)})" if face.notes else ""
        yield f"{face.expression:{width}}  {share:>6}  {left}  {top}  {side}  {name}{notes}"
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
                    "score": face.score,
                    "roll": face.roll,
                    "landmarks": None if face.landmarks is None else face.landmarks.tolist(),
                    "notes": face.notes,
                }
                for face in prediction.faces
            ],
        }
    )


def _csv_lines(prediction: "Prediction | None", classes: tuple[str, ...]) -> Iterator[str]:
    if prediction is None:
        where = ("picture", "frame", "seconds", "left", "top", "side", "expression")
        yield _csv_line([*where, *classes, "score", "roll", "notes"])
        return
    picture = prediction.picture
    # Bytes of a name that are not UTF-8 cannot be printed.
    source = picture.source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    place = [source, picture.frame, picture.seconds]
    for face in prediction.faces:
        cells = [*place, *face.box, face.expression, *face.probabilities.values()]
        yield _csv_line([*cells, face.score, face.roll, " ".join(face.notes)])
    if not prediction.faces:
        yield _csv_line(place + [None] * (7 + len(classes)))


def _csv_line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().removesuffix("\n")


def _name(picture: "Picture") -> str:
    if picture.seconds is not None:
        return f"{picture.source} at {picture.seconds:.2f} s"
    return picture.source if picture.frame is None else f"{picture.source} {picture.frame}"
