"""Predict the expressions of faces in pictures, videos and the webcam.

PATH is a picture, a video, a folder (searched recursively) or a pattern such as
'holiday/**/*.jpg'. Files that cannot be read are reported and skipped. In videos and the webcam,
each person has a track number.

Examples:
  deep-emotion predict photo.jpg holiday --save out
  deep-emotion predict film.mp4 --every 0.2s --csv --save out

exit codes: 0 all files were read, 1 some could not be read, 2 invalid arguments.
"""

import argparse
import itertools
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from deep_emotion_jax.cli import rows
from deep_emotion_jax.cli.options import add_device, add_model, path
from deep_emotion_jax.constants import SMOOTH_SECONDS
from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    from deep_emotion_jax.data.detectors import Detector
    from deep_emotion_jax.data.video import Every
    from deep_emotion_jax.inference.predictor import Prediction, Predictor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="pictures, videos, folders")
    parser.add_argument("--webcam", action="store_true", help="use the webcam until Ctrl-C")
    add_model(parser)
    parser.add_argument(
        "--detector",
        choices=("builtin", "yunet", "none"),
        default="builtin",
        help="face detector: the YuNet of the package, a YuNet file run by OpenCV, or none for "
        "pictures of cropped faces (default: %(default)s)",
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
        help="folder for annotated pictures with boxes, probabilities, attended region and "
        "importance map; for a video, a film with boxes, a timeline and a summary of the tracks "
        "(default: none)",
    )
    videos = parser.add_argument_group("videos and the webcam")
    videos.add_argument(
        "--every",
        type=_every,
        metavar="STEP",
        help="5 uses every fifth frame, 0.2s one frame per 0.2 seconds (default: all frames)",
    )
    videos.add_argument(
        "--smooth",
        type=_seconds,
        default=SMOOTH_SECONDS,
        metavar="SECONDS",
        help="average the probabilities of each track over SECONDS; 0 for no averaging (default: "
        "%(default)s)",
    )
    videos.add_argument(
        "--show", action="store_true", help="show the tracks in a window during prediction"
    )
    add_device(parser)


def _every(text: str) -> "Every":
    from deep_emotion_jax.data.video import Every

    try:
        return Every.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds, such as 0.5")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Predict and print; the module's docstring lists the exit codes.

    Raises:
      UserError: for conflicting arguments, or if a network, detector or webcam cannot be used or a
        folder cannot be written.
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

    lines = rows.csv_lines if arguments.csv else rows.table_lines
    printer = Printer(rows.json_lines if arguments.json else lines, predictor.classes)
    if arguments.webcam:
        from deep_emotion_jax.cli import follow

        follow.webcam(predictor, printer, arguments)
    else:
        files = pictures.files(arguments.paths, report)
        for are_videos, group in itertools.groupby(files, pictures.is_video):
            if are_videos:
                from deep_emotion_jax.cli import follow

                for file in group:
                    follow.video(file, predictor, printer, arguments, report)
            else:
                read = pictures.read(map(str, group), report)
                _print_and_save(predictor.stream(read), predictor, printer, arguments)
    if unreadable:
        print(f"{unreadable} could not be read and were skipped", file=sys.stderr)
    return 1 if unreadable else 0


class Printer:
    """Prints predictions on standard output, with a header before the first one.

    Args:
      lines: the format.
      classes: the network's classes.
    """

    def __init__(self, lines: rows.Format, classes: tuple[str, ...]):
        self._lines, self._classes, self._started = lines, classes, False

    def __call__(self, prediction: "Prediction") -> None:
        """Print one prediction."""
        from tqdm import tqdm

        header = [] if self._started else self._lines(None, self._classes)
        self._started = True
        for line in itertools.chain(header, self._lines(prediction, self._classes)):
            tqdm.write(line, file=sys.stdout)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.paths) == arguments.webcam:
        raise UserError("give either a PATH or --webcam")
    if (arguments.detector == "yunet") != (arguments.detector_model is not None):
        raise UserError("--detector yunet and --detector-model PATH must be given together")
    for given in arguments.paths:
        if re.match(r"[a-z]+://", given, re.IGNORECASE):
            raise UserError(f"{given} is a URL: download the picture and give the path of the file")


def _print_and_save(
    predictions: "Iterable[Prediction]",
    predictor: "Predictor",
    printer: Printer,
    arguments: argparse.Namespace,
) -> None:
    """Print the predictions of pictures, and write annotated pictures if --save is given."""
    from tqdm import tqdm

    from deep_emotion_jax.inference import drawing

    saved: list[Path] = []
    faceless = 0
    for prediction in tqdm(predictions, unit=" pictures", disable=None, leave=False):
        printer(prediction)
        faceless += not prediction.faces
        if arguments.save and prediction.faces:
            maps = [predictor.importance(face) for face in prediction.faces]
            saved.append(drawing.path_in(arguments.save, prediction.picture))
            drawing.save(prediction, maps, saved[-1])
    if faceless:
        print(
            f"no face found in {faceless} picture{'' if faceless == 1 else 's'}; "
            "if they are cropped faces, use --detector none",
            file=sys.stderr,
        )
    if arguments.save:
        count = f"{len(saved)} annotated picture{'' if len(saved) == 1 else 's'}"
        where = saved[0] if len(saved) == 1 else arguments.save
        print(f"{count}: {where}", file=sys.stderr)


def _detector(arguments: argparse.Namespace) -> "Detector":
    from deep_emotion_jax.data.detectors import FaceDetector, YuNetDetector, whole_picture

    if arguments.detector == "yunet":
        return YuNetDetector(arguments.detector_model)
    return whole_picture if arguments.detector == "none" else FaceDetector()
