"""`deep-emotion predict` for videos and the webcam: rows, film, timeline and summary."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from deep_emotion_jax.data.pictures import Report
from deep_emotion_jax.data.video import Every, Video
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_bytes, write_text
from deep_emotion_jax.inference import drawing, summary, timeline
from deep_emotion_jax.inference.video import Film, draw, follow
from deep_emotion_jax.inference.window import Window

if TYPE_CHECKING:
    from deep_emotion_jax.inference.predictor import Prediction, Predictor

Print = Callable[["Prediction"], None]


class Outputs:
    """Collects and writes the film, timeline and summary of one video.

    Args:
      folder: the folder of --save; None writes no files.
      source: the video.
      classes: the network's classes.

    Raises:
      UserError: if the folder cannot be written.
    """

    def __init__(self, folder: Path | None, source: str, classes: tuple[str, ...]):
        self.summary = summary.Summary()
        self._classes = classes
        self._start = None if folder is None else drawing.place_in(folder, source)
        self._film = None if self._start is None else Film(self._path(".faces.mp4"), source)

    def add(self, prediction: "Prediction") -> None:
        """Add a frame."""
        self.summary.add(prediction)
        if self._film is not None:
            self._film.add(prediction)

    def finish(self) -> list[Path]:
        """Print the summary, write the files for the frames so far, and return their paths."""
        lanes, seconds = self.summary.finish(), self.summary.seconds
        if lanes:
            print(summary.as_text(lanes), file=sys.stderr)
        if self._film is None or not self._film.finish():
            return []
        picture, table = self._path(".timeline.png"), self._path(".tracks.csv")
        try:
            write_bytes(picture, timeline.as_png(lanes, seconds, self._classes))
            write_text(table, summary.as_csv(lanes, self._classes))
        except OSError as error:
            raise UserError(f"cannot write {picture}: {error.strerror or error}") from error
        return [self._film.path, picture, table]

    def discard(self) -> None:
        """Delete an unfinished film."""
        if self._film is not None:
            self._film.discard()

    def _path(self, ending: str) -> Path:
        assert self._start is not None
        return self._start.with_name(self._start.name + ending)


def video(
    path: Path,
    predictor: "Predictor",
    write: Print,
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    """Print the rows of a video, and write the files of --save.

    Args:
      path: the video.
      predictor: finds the faces and classifies their expressions.
      write: prints the rows of a prediction.
      arguments: the command's arguments.
      report: called with the error if the file cannot be read completely.

    Raises:
      UserError: if a file cannot be written, or there is no display for --show.
    """
    try:
        opened = Video(path)
    except UserError as error:
        report(error)
        return
    with opened:
        _follow(opened, predictor, write, arguments, report)


def webcam(predictor: "Predictor", write: Print, arguments: argparse.Namespace) -> None:
    """Do the same as `video` for the first camera, until Ctrl-C or the window is closed.

    Raises:
      UserError: as `video`, or if no camera can be read.
    """

    def fail(error: UserError) -> None:
        raise error

    with Video(None) as opened:
        _follow(opened, predictor, write, arguments, fail)


def _follow(
    opened: Video,
    predictor: "Predictor",
    write: Print,
    arguments: argparse.Namespace,
    report: Report,
) -> None:
    window = Window(opened.source) if arguments.show else None
    outputs = Outputs(arguments.save, opened.source, predictor.classes)
    every = arguments.every or Every()
    live = arguments.show or arguments.webcam
    predictions = follow(predictor, opened, every, arguments.smooth, live=live, report=report)
    try:
        with _bar(opened) as bar:
            for prediction in predictions:
                write(prediction)
                outputs.add(prediction)
                bar.update((prediction.picture.seconds or 0.0) - bar.n)
                if window is not None and not window.show(draw(prediction)):
                    break
        _say(opened.source, outputs.finish())
    except KeyboardInterrupt:
        print(f"stopped after {outputs.summary.seconds:.1f} s", file=sys.stderr)
        _say(opened.source, outputs.finish())
        raise
    finally:
        outputs.discard()
        if window is not None:
            window.close()


def _bar(opened: Video) -> Any:
    whole = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"
    return tqdm(
        total=opened.duration,
        desc=Path(opened.source).name,
        bar_format=whole if opened.duration else "{desc}: {n:.1f} s [{elapsed}]",
        disable=None,
        leave=False,
    )


def _say(source: str, written: list[Path]) -> None:
    if written:
        print(f"{source}: {', '.join(map(str, written))}", file=sys.stderr)
