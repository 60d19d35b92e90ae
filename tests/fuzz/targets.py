"""Functions that read external files or values, each as a target for damaged bytes.

A target may return or raise UserError; anything else is a defect. `check` runs one case.
"""

import gzip
import json
import random
import resource
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import archives, common
from datasets.ck_plus import ck_plus_dataset_builder as ck_plus
from datasets.ck_plus import sources as ck_sources
from datasets.fer2013 import ferplus, sources
from datasets.ferg import ferg_dataset_builder as ferg
from datasets.jaffe import jaffe_dataset_builder as jaffe
from deep_emotion_jax.data import detectors, pictures
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference.predictor import Predictor
from deep_emotion_jax.nn.weights import load_model

from . import records, seeds, surfaces
from .mutate import mutate

SECONDS, SECONDS_OF_WAITING = 10, 100  # limits for one case, of CPU time and of time
LOCKS = ("jaffe.lock",)  # of the builder in use
MEGABYTES = 600  # limit for the increase of the peak memory in one case


class Target(NamedTuple):
    """A function to fuzz.

    Attributes:
      seeds: scratch folder -> valid inputs, to be damaged.
      lay: writes one input to a folder of the target and returns a function that reads it.
    """

    seeds: Callable[[Path], list[bytes]]
    lay: Callable[[Path, bytes], Callable[[], object]]


class DefectError(AssertionError):
    """A defect of the code under test."""


class _HangError(BaseException):
    """A timeout; not caught by `except Exception`."""


def check(case: Callable[[], object], folder: Path) -> str:
    """Runs one case and returns how it ended: "read" or "refused".

    Args:
      case: reads the input in `folder`.
      folder: a folder whose files must not change.

    Raises:
      DefectError: it raised an error other than a clear UserError, took too long or too much
        memory, or changed files.
    """
    before = _listing(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _alarm():
            case()
        outcome = "read"
    except UserError as error:
        outcome = "refused"
        message = str(error)
        if not message or len(message) > 2000 or not message.replace("\n", "").isprintable():
            raise DefectError(f"no clear message: {message[:3000]!r}") from error
    except (Exception, _HangError) as error:
        raise DefectError(f"{type(error).__name__}: {error}") from error
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / scale
    if grown > MEGABYTES:
        raise DefectError(f"{grown:.0f} MB of memory")
    if _listing(folder) != before:
        raise DefectError("wrote or removed files where it must not")
    return outcome


def _listing(folder: Path) -> set[tuple[Path, int]]:
    # A preparation leaves an empty lock.
    files = (path for path in folder.rglob("*") if not path.is_dir() and path.name not in LOCKS)
    return {(path, path.lstat().st_size) for path in files}


@contextmanager
def _alarm():
    """Ends cases that compute or wait too long."""

    def ring(*_):
        raise _HangError(f"not done after {SECONDS} s of work or {SECONDS_OF_WAITING} s")

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, SECONDS_OF_WAITING),
    )
    before = {number: signal.signal(number, ring) for number, _, _ in timers}
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def damaged(name: str, folder: Path, rng: random.Random) -> Callable[[], object]:
    """Writes a damaged input of a target to the folder; returns a function that reads it."""
    return TARGETS[name].lay(folder, mutate(rng.choice(valid(name)), rng))


@cache
def valid(name: str) -> list[bytes]:
    """The seeds of a target."""
    with tempfile.TemporaryDirectory() as folder:
        return TARGETS[name].seeds(Path(folder))


def _put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _file(name: str, read: Callable[[Path], object]) -> Callable:
    """`Target.lay` for a file of this name."""

    def lay(folder: Path, data: bytes) -> Callable[[], object]:
        path = _put(folder, name, data)
        return lambda: read(path)

    return lay


def _bytes(read: Callable[[bytes], object]) -> Callable:
    """`Target.lay` for a function of the bytes."""
    return lambda folder, data: lambda: read(data)


def _gzip_of_tar(folder: Path, data: bytes) -> Callable[[], object]:
    path = _put(folder, "fer2013.tar.gz", gzip.compress(data, 1))
    return lambda: list(sources.read(path))


def _join_votes(folder: Path, data: bytes) -> Callable[[], object]:
    source = _put(folder, "fer2013.csv", seeds.csv())
    path = _put(folder, "fer2013new.csv", data)
    joined = lambda: list(ferplus.join(sources.read(source), source, path))  # noqa: E731
    return lambda: [ferplus.majority(votes) for _, votes in joined()]


def _read_zip(path: Path) -> None:
    with archives.open_files(path, (".jpg", ".jpeg", ".png"), (".txt",)) as found:
        for read in found.values():
            try:
                read()
            except UserError:
                continue
    list(sources.read(path))


def _read_ck_label(folder: Path, data: bytes) -> Callable[[], object]:
    frame = "S001/001/S001_001_00000001"
    _put(folder, f"cohn-kanade-images/{frame}.png", b"")
    _put(folder, f"Emotion/{frame}_emotion.txt", data)

    def read() -> None:
        with ck_sources.open_source(folder):
            pass

    return read


@cache
def _large_picture() -> bytes:
    return seeds.picture("PNG", side=490)


def _read_landmarks(data: bytes) -> None:
    landmarks = (Path("a_landmarks.txt"), lambda: data)
    frame = ck_sources.Frame("S001_001_00000001", Path("a.png"), _large_picture, landmarks)
    ck_plus._crop("S001_001", (frame,), [common.read_image(frame.read(), frame.path)])


def _read_names(folder: Path, data: bytes) -> Callable[[], object]:
    """Member names of an archive, one per line, read as every dataset does."""
    names = [line.decode("utf-8", "replace") for line in data.split(b"\n")]
    with zipfile.ZipFile(folder / "names.zip", "w") as archive:
        for name in dict.fromkeys(names):
            if name and "\0" not in name:
                archive.writestr(zipfile.ZipInfo(name), b"")

    def read() -> None:
        path = folder / "names.zip"
        for reader in (_names_of_ck, _names_of_jaffe, _names_of_ferg, _names_of_fer2013):
            try:
                reader(path)
            except UserError:
                continue

    return read


def _names_of_ck(path: Path) -> None:
    with ck_sources.open_source(path):
        pass


def _names_of_jaffe(path: Path) -> None:
    with archives.open_files(path, jaffe._ENDINGS) as found:
        archives.by_key(found, lambda file: jaffe.parse_name(file).key)


def _names_of_ferg(path: Path) -> None:
    with archives.open_files(path, (".png",)) as found:
        archives.by_key(found, ferg._key)


def _names_of_fer2013(path: Path) -> None:
    list(sources.read(path))


def _read_weights_header(folder: Path, data: bytes) -> Callable[[], object]:
    """A damaged header with a correct length, before undamaged tensors."""
    rest = seeds.split_safetensors(valid("weights file")[0])[1]
    return _file("a.safetensors", load_model)(folder, seeds.join_safetensors(data, rest))


def _read_weights_description(folder: Path, data: bytes) -> Callable[[], object]:
    """A damaged description of the network in a valid safetensors file."""
    header, rest = seeds.split_safetensors(valid("weights file")[0])
    header["__metadata__"]["deep_emotion_jax"] = data.decode("utf-8", "replace")
    whole = seeds.join_safetensors(json.dumps(header).encode(), rest)
    return _file("a.safetensors", load_model)(folder, whole)


@cache
def predictor() -> Predictor:
    """The shipped network with the detector for pictures of single faces."""
    return Predictor.from_pretrained("deep_emotion.fer2013", detectors.whole_picture)


def _predict(path: Path) -> None:
    for face in predictor().predict(path).faces:
        if not np.isfinite([*face.probabilities.values(), *face.region.ravel()]).all():
            raise ValueError("not finite")


def _predict_array(data: bytes) -> None:
    """Interprets the bytes as an array of any type and shape, with any values."""
    rng = random.Random(data)
    types = ("uint8", "uint16", "int8", "int32", "int64", "float16", "float32", "float64", "bool")
    dtype = np.dtype(
        rng.choice([*types, "complex64", "object", "S3", "M8[s]", ">f4", "longdouble"])
    )
    shape = [rng.choice((0, 1, 2, 3, 4, 5, 48)) for _ in range(rng.randrange(5))]
    if dtype.kind == "O":
        array = np.full(shape, None)
    else:
        array = np.frombuffer(
            np.resize(np.frombuffer(data or b"0", np.uint8), dtype.itemsize * int(np.prod(shape))),
            dtype,
        ).reshape(shape)
    if dtype.kind == "f" and rng.random() < 0.7:
        with np.errstate(all="ignore"):
            array = np.abs(array) % 1  # in range, unless not finite
    predictor().predict(array)


TARGETS = {
    "FER-2013 CSV": Target(
        lambda _: [seeds.csv(), seeds.csv(1)],
        _file("fer2013.csv", lambda path: list(sources.read(path))),
    ),
    "FER-2013 tar.gz": Target(
        lambda _: [seeds.tar_gz()],
        _file("fer2013.tar.gz", lambda path: list(sources.read(path))),
    ),
    "FER-2013 tar inside gzip": Target(lambda _: [seeds.tar(seeds.csv(1))], _gzip_of_tar),
    "FER+ votes": Target(lambda _: [seeds.votes()], _join_votes),
    "zip archive": Target(lambda _: seeds.zips(), _file("archive.zip", _read_zip)),
    "names in an archive": Target(
        lambda _: [
            b"train/angry/Training_1.jpg\ntest/happy/PublicTest_2.png\n",
            b"CK+48/anger/S010_004_00000017.png\nCK+48/anger/S010_004_00000018.png\n",
            b"jaffe/KA.AN1.39.tiff\njaffe/KA.AN2.40.tiff\n",
            b"FERG_DB_256/aia/aia_anger/aia_anger_1.png\n",
            b"cohn-kanade-images/S010/004/S010_004_00000017.png\n"
            b"Emotion/S010/004/S010_004_00000017_emotion.txt\n",
        ],
        _read_names,
    ),
    "dataset picture": Target(
        lambda _: seeds.dataset_pictures(),
        _bytes(lambda data: common.face_image(common.read_image(data, Path("a.png")))),
    ),
    "CK+ label": Target(lambda _: [b"   3.0000000e+00\n"], _read_ck_label),
    "CK+ landmarks": Target(lambda _: [seeds.landmarks()], _bytes(_read_landmarks)),
    "weights file": Target(seeds.weights, _file("a.safetensors", load_model)),
    "weights header": Target(
        lambda folder: [
            json.dumps(seeds.split_safetensors(data)[0]).encode() for data in seeds.weights(folder)
        ],
        _read_weights_header,
    ),
    "weights description": Target(
        lambda folder: [
            seeds.split_safetensors(data)[0]["__metadata__"]["deep_emotion_jax"].encode()
            for data in seeds.weights(folder)[:1]
        ],
        _read_weights_description,
    ),
    "picture file": Target(
        lambda _: seeds.all_pictures(),
        _file("a.png", lambda path: detectors.whole_picture(pictures.read_picture(path))),
    ),
    "predict, file": Target(lambda _: seeds.all_pictures(), _file("a.png", _predict)),
    "video file": Target(surfaces.videos, _file("a.mp4", surfaces.read_video)),
    "FER-2013 csv.gz": Target(surfaces.gzips, _file("fer2013.csv.gz", surfaces.read_gzip)),
    "kept arrays": Target(surfaces.kept_arrays, surfaces.read_arrays),
    "detections": Target(
        lambda _: [np.random.default_rng(0).random(450, np.float32).tobytes(), b"\0" * 60],
        _bytes(surfaces.frame_detections),
    ),
    "device name": Target(lambda _: [b"auto", b"cpu", b"tpu"], _bytes(surfaces.choose_device)),
    "class names": Target(records.class_names, records.put_class_names),
    "run": Target(records.runs, records.put_run),
    "result": Target(records.results, records.put_results),
    "labels of photographs": Target(records.labels, records.put_labels),
    "predict, array": Target(lambda _: [seeds.FACE.tobytes(), b"\0" * 64], _bytes(_predict_array)),
}
