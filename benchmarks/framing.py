"""Measures YuNet's boxes relative to FER-2013's frame.

    FER2013_DIR=... python -m benchmarks.framing

FER2013_DIR is the unpacked image archive of Kaggle (train/<expression>/*.jpg). Training faces are
enlarged and padded with grey. The table shows the size of the box, the distances between landmarks
and the centre of the box in units of the frame. `detectors.FRAME_SIDE` is based on them; see
docs/detector.md.
"""

import argparse
import os
import random
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from deep_emotion_jax.data.detectors import FRAME_SIDE, FaceDetector
from deep_emotion_jax.inference.quality import turn


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, default=2000, help="default: %(default)s")
    count = parser.parse_args().faces
    files = sorted(Path(os.environ["FER2013_DIR"]).glob("train/*/*.jpg"))
    random.Random(0).shuffle(files)
    rows, found = [], 0
    for times in (3, 4):
        measured = [row for file in files[:count] if (row := _measure(file, times, FaceDetector()))]
        found = len(measured)
        low, middle, high = np.percentile(measured, [10, 50, 90], axis=0)
        names = ("box", "eye to eye", "eyes to mouth", "centre x", "centre y", "turn")
        rows += [
            [f"{times} x, {found} of {count} found", name, *values]
            for name, *values in zip(names, low, middle, high, strict=True)
        ]
    print(tabulate(rows, ["faces", "in units of the frame", "10 %", "median", "90 %"], "github"))


def _measure(file: Path, times: int, detector: FaceDetector) -> list[float] | None:
    side = 48 * times
    border = side // 3
    face = Image.open(file).convert("L").resize((side, side), Image.Resampling.BICUBIC)
    picture = np.pad(np.asarray(face), border, constant_values=128)
    faces = detector(np.repeat(picture[..., None], 3, axis=2))
    if not faces:
        return None
    box, landmarks = faces[0].box, faces[0].landmarks
    assert landmarks is not None
    x, y = ((value - border) / side for value in box.centre)
    eyes, mouth = landmarks[:2], landmarks[3:]
    return [
        box.side / FRAME_SIDE / side,
        float(np.hypot(*(eyes[1] - eyes[0]))) / side,
        float(np.hypot(*(mouth.mean(axis=0) - eyes.mean(axis=0)))) / side,
        x,
        y,
        abs(turn(landmarks)),
    ]


if __name__ == "__main__":
    main()
