"""Fuzzing targets for JSON and CSV files of evaluations: runs, results, class names, labels."""

import json
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.photos import read_photos
from deep_emotion_jax.evaluation.comparison import read_record
from deep_emotion_jax.evaluation.runs import read_class_names, read_run
from tests.commands import ROOT

from . import seeds

VALUES = (None, True, -1, 0.5, 1e300, "", "\0", "x" * 5000, "../x", [], {}, [[1]], ["a", 1])
CLASS_NAMES = {"anger": "angry", "contempt": None}
RUN = {
    "config": {"protocol": "official", "seed": 0, "model": {"width": 1.0}},
    "runs": ["official-seed-0"],
    "fingerprint": "00",
    "paths": {"data_dir": "data", "manual_dir": ""},
}
LABELS = b"file,kind,faces,expression\na.png,x,1,happy\na.png,y,,\n"


def class_names(_: Path) -> list[bytes]:
    """A file for `eval.py evaluate --classes`."""
    return [json.dumps(CLASS_NAMES).encode()]


def runs(_: Path) -> list[bytes]:
    """The config.json of a run."""
    return [json.dumps(RUN).encode()]


def results(_: Path) -> list[bytes]:
    """Files for `eval.py table --json`: the results in the README."""
    records = json.loads((ROOT / "docs/results.json").read_text())
    return [json.dumps(record).encode() for record in records]


def labels(_: Path) -> list[bytes]:
    """A labels.csv of photographs."""
    return [LABELS]


def put_class_names(folder: Path, data: bytes) -> Callable[[], object]:
    """Writes a file of class names."""
    return _put_json(folder / "classes.json", data, class_names, read_class_names)


def put_run(folder: Path, data: bytes) -> Callable[[], object]:
    """Writes a finished run with this config.json."""
    (folder / "weights").mkdir(exist_ok=True)
    for name, content in _rest_of_run().items():
        (folder / name).write_bytes(content)
    return _put_json(
        folder / "config.json", data, runs, lambda path: read_run(path.parent).networks
    )


def put_results(folder: Path, data: bytes) -> Callable[[], object]:
    """Writes the result of an evaluation."""
    return _put_json(folder / "record.json", data, results, read_record)


def put_labels(folder: Path, data: bytes) -> Callable[[], object]:
    """Writes labels.csv next to a picture."""
    (folder / "a.png").write_bytes(seeds.picture("PNG"))
    (folder / "labels.csv").write_bytes(data)
    return lambda: read_photos(folder)


@cache
def _rest_of_run() -> Mapping[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        weights = seeds.weights(Path(folder))[0]
    return {"summary.json": b"{}", "weights/official-seed-0.safetensors": weights}


def _put_json(
    path: Path,
    data: bytes,
    valid: Callable[[Path], list[bytes]],
    read: Callable[[Path], object],
) -> Callable[[], object]:
    """Writes the bytes, or, for half of the damaged ones, valid JSON with another value."""
    rng, undamaged = random.Random(data), valid(path.parent)
    if data not in undamaged and rng.random() < 0.5:
        data = json.dumps(_replaced(json.loads(rng.choice(undamaged)), rng)).encode()
    path.write_bytes(data)
    return lambda: read(path)


def _replaced(value: Any, rng: random.Random) -> Any:
    """A copy in which one value is another or missing."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return rng.choice(VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    if rng.random() < 0.2:
        del copy[key]
    else:
        copy[key] = _replaced(value[key], rng)
    return copy
