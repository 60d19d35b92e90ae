"""Training on a million faces in bounded memory, and the cost of streaming.

    python -m benchmarks.streaming --folder FOLDER_WITH_2.3_GB

Drawing a million faces would take hours, so a few thousand are drawn and repeated with random
changes (mirror, shift, contrast); number of bytes and access pattern are the same. The first part
trains one epoch on them with `loop.fit` and measures the peak memory of this process; run again
with the same folder, it resumes. The second part trains on fewer faces from the disk and in memory
in turn, and measures CPU time, which other work on the machine affects less. The third part only
reads.
"""

import contextlib
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from datasets.synthetic_faces import face
from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.data.stored import Part, StoredRows
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.loop import fit
from deep_emotion_jax.training.streaming import Steps, read_ahead

VALIDATION = 3_589
BLOCK = 10_000
SHAPE = (48, 48, 1)


def make_faces(path: Path, count: int, drawn: int) -> Split:
    """Writes `count` changed copies of `drawn` faces, unless the file exists."""
    examples = [face.draw_example(0, i) for i in range(drawn)]
    faces = np.stack([example.image for example in examples])[..., None]
    labels = np.array([example.label for example in examples], np.int32)
    if not path.exists() or path.stat().st_size != count * faces[0].nbytes:
        rng = np.random.default_rng(0)
        with path.open("wb") as file:
            for first in range(0, count, BLOCK):
                some = np.arange(first, min(count, first + BLOCK)) % drawn
                changed(faces[some], rng).tofile(file)
    images: Any = StoredRows([Part(path, 0, faces[0].nbytes, count)], np.uint8, SHAPE)
    return Split(images, np.resize(labels, count), [str(i) for i in range(count)], [""] * count)


def changed(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors half of the faces uint8 [N, H, W, 1], and shifts and changes contrast of all."""
    faces = np.where(rng.random((len(faces), 1, 1, 1)) < 0.5, faces[:, :, ::-1], faces)
    down, right = rng.integers(-4, 5, (2, len(faces), 1))
    rows = np.clip(np.arange(SHAPE[0]) + down, 0, SHAPE[0] - 1)
    columns = np.clip(np.arange(SHAPE[1]) + right, 0, SHAPE[1] - 1)
    faces = faces[np.arange(len(faces))[:, None, None], rows[:, :, None], columns[:, None, :]]
    factor = rng.uniform(0.6, 1.2, (len(faces), 1, 1, 1))
    return np.clip(128 + factor * (faces - 128.0), 0, 255).astype(np.uint8)


def train(data: Split, workdir: Path, epochs: int, batch: int, streaming: str) -> list[float]:
    """Trains on all images but the last ones, and returns images per second of each epoch."""
    workdir.mkdir(exist_ok=True)
    index = np.arange(len(data.labels))
    held_out = min(VALIDATION, len(index) // 4)
    fold = Fold("benchmark", index[:-held_out], index[-held_out:], index[:0])
    experiment = Experiment(
        num_epochs=epochs,
        streaming=streaming,
        recipe=Recipe(batch),
        augmentation=Augmentation(shift=0.06),
    )
    runs = [Run(fold, 0)]
    _, records = fit([common.make_model()], experiment, data, runs, workdir=workdir, about={})
    return [len(fold.train) / record["seconds"] for record in records]


def train_on_all(data: Split, folder: Path, batch: int) -> dict[str, Any]:
    """Trains one epoch on all faces, and measures the peak memory of this process."""
    began = time.perf_counter()
    (speed,) = train(data, folder / "million", 1, batch, "auto")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - began
    print(
        f"{len(data.labels):,} faces ({data.images.nbytes / 1e9:.2f} GB): {speed:,.0f} images/s, "
        f"{seconds:,.0f} s with start and validation, peak memory {peak / 1e9:.2f} GB",
        flush=True,
    )
    return {"images_per_second": speed, "seconds": seconds, "peak_memory_bytes": peak}


def compare(data: Split, count: int, batch: int, rounds: int) -> dict[str, Any]:
    """Measures CPU seconds of the second epoch from the disk and in memory, in turn."""
    some = Split(data.images, data.labels[:count], data.keys[:count], data.subjects[:count])
    sides = {"always": some, "never": some._replace(images=data.images[:count])}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, own in sides.items():
            stamps = common.EpochTimes(time.process_time)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(stamps):
                train(own, Path(folder), 2, batch, name)
            first, second = stamps.times
            seconds[name].append(second - first)
    pairs = zip(seconds["always"], seconds["never"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"streamed, {count:,} faces take {ratio:.2f} times the CPU time", flush=True)
    return {"cpu_seconds": seconds, "streamed_over_memory": ratio}


def read_only(data: Split, batch: int, steps: int) -> float:
    """Images per second that Grain reads at random places, without training."""
    order = np.random.default_rng(0).permutation(len(data.labels))[: batch * steps]
    chosen = order.reshape(1, steps, batch)
    began = time.perf_counter()
    for _ in read_ahead(Steps(data, chosen, np.ones(chosen.shape, np.float32)), 0, 28):
        pass
    speed = batch * steps / (time.perf_counter() - began)
    print(f"reading alone: {speed:,.0f} images/s", flush=True)
    return speed


def main() -> None:
    """Measures the three parts and writes streaming.json."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for faces and checkpoints"
    )
    arguments = parser.parse_args()
    settings = {"images": 1_000_000, "drawn": 3_500, "batch": 128, "compared": 12_800, "rounds": 3}
    if arguments.quick:
        settings = {"images": 300, "drawn": 35, "batch": 32, "compared": 128, "rounds": 1}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data = make_faces(arguments.folder / "faces.bin", settings["images"], settings["drawn"])
    batch = settings["batch"]
    results = {
        "all": train_on_all(data, arguments.folder, batch),
        "compared": compare(data, settings["compared"], batch, settings["rounds"]),
        "read_images_per_second": read_only(data, batch, settings["images"] // batch),
    }
    common.write_json(arguments.results, "streaming", settings, results)


if __name__ == "__main__":
    main()
