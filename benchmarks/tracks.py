"""Accuracy and speed of tracking: python -m benchmarks.tracks.

Makes a video of two faces that cross, one of them hidden for half a second, and one in which they
turn back while hidden. Tracks them at several frame rates, and prints how often a face's number
changed, and the time per frame.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from deep_emotion_jax.constants import DEFAULT_MODEL
from deep_emotion_jax.data.video import Every, Video
from deep_emotion_jax.inference.predictor import Prediction, Predictor
from deep_emotion_jax.inference.video import Film, follow
from tests import films

SECONDS, RATE = 6, 25
RATES = (25.0, 12.5, 5.0, 2.5)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_PATH")
    predictor = Predictor.from_pretrained(parser.parse_args().model)
    with tempfile.TemporaryDirectory() as folder:
        print(_identities(predictor, Path(folder)), "\n")
        print(_costs(predictor, Path(folder)))


def _identities(predictor: Predictor, folder: Path) -> str:
    rows = []
    for turns_back in (False, True):
        scenes = list(films.crossing(np.arange(SECONDS * RATE) / RATE, SECONDS, turns_back))
        path = films.write(folder / f"{turns_back}.mp4", (scene[:2] for scene in scenes))
        for rate in RATES:
            with Video(path) as opened:
                found = list(follow(predictor, opened, Every(frames=round(RATE / rate))))
            numbers, switches = changes(found, [centres for _, _, centres in scenes])
            rows.append(["turn back" if turns_back else "cross", rate, numbers, switches])
    headers = ["two faces", "frames per second", "track numbers", "changes of number"]
    return tabulate(rows, headers, tablefmt="github")


def changes(found: list[Prediction], centres: list[list[tuple[float, float]]]) -> tuple[int, int]:
    """Counts the track numbers, and how often a face's number changed.

    Args:
      found: the predictions, with tracks.
      centres: centres of the faces in each frame of the video, the front one first.
    """
    last: dict[int, int | None] = {}
    numbers, count = set(), 0
    for prediction in found:
        places = np.array(centres[prediction.picture.frame or 0])
        for face in prediction.faces:
            owner = int(np.linalg.norm(places - face.box.centre, axis=1).argmin())
            # If both are at the same position, only the front one is visible.
            owner = 0 if np.linalg.norm(places[0] - places[1]) < face.box.side / 3 else owner
            count += last.get(owner, face.track) != face.track
            last[owner] = face.track
            numbers.add(face.track)
    return len(numbers), count


def _costs(predictor: Predictor, folder: Path) -> str:
    rows = []
    for width, height in ((640, 360), (1280, 720), (1920, 1080)):
        scenes = films.crossing(np.arange(2 * RATE) / RATE, SECONDS)
        large = (
            (seconds, np.asarray(Image.fromarray(pixels).resize((width, height))))
            for seconds, pixels, _ in scenes
        )
        path = films.write(folder / f"{width}.mp4", large, preset="veryfast")
        for film in (False, True):
            wall, cpu = _cost(predictor, path, film)
            ratio = RATE * wall
            cells = [f"{1e3 * wall:.0f}", f"{1e3 * cpu:.0f}", f"{ratio:.1f}"]
            rows.append([f"{width} x {height}", "yes" if film else "no", *cells])
    headers = ["frames", "film", "ms/frame", "CPU ms/frame", "times the duration at 25/s"]
    return tabulate(rows, headers, tablefmt="github")


def _cost(predictor: Predictor, path: Path, film: bool) -> tuple[float, float]:
    """Measures wall-clock and CPU seconds per frame, without the first frames, which compile."""
    target = Film(path.with_suffix(".faces.mp4"), str(path)) if film else None
    marks = []
    with Video(path) as opened:
        for prediction in follow(predictor, opened):
            if target is not None:
                target.add(prediction)
            marks.append((time.perf_counter(), time.process_time()))
    if target is not None:
        target.finish()
    # Frames are predicted in batches of four.
    (wall, cpu), (last_wall, last_cpu) = marks[7], marks[-1]
    count = len(marks) - 8
    return (last_wall - wall) / count, (last_cpu - cpu) / count


if __name__ == "__main__":
    main()
