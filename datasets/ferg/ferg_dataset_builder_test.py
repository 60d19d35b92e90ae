"""A small FERG-DB in its original layout, and errors for malformed data."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets import archives, common
from datasets.ferg.ferg_dataset_builder import Builder
from deep_emotion_jax.errors import UserError

LABELS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
EXPRESSIONS = ["anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"]
CHARACTERS = ["aia", "bonnie", "jules", "malcolm", "mery", "ray"]
COUNTS = {"characters": 6, "images": 84}


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(Builder, "COUNTS", COUNTS)


def picture(name):
    """RGBA: a disc of noise in a transparent square, whose hidden colours are noise too."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (256, 256, 4), np.uint8)
    y, x = np.indices((256, 256)) - 128
    pixels[..., 3] = np.clip(110 - np.hypot(x, y), 0, 1) * 255
    return pixels


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


KEYS = [f"{c}_{e}/{c}_{e}_{i}" for c in CHARACTERS for e in EXPRESSIONS for i in (1, 20)]
MEMBERS = {f"FERG_DB_256/{key.split('_')[0]}/{key}.png": png(picture(key)) for key in KEYS}


def write_folder(root, members=MEMBERS):
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path, members=MEMBERS):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def prepare(tmp_path, manual_dir):
    builder = Builder(data_dir=tmp_path / "data")
    common.prepare(builder, manual_dir)
    return builder


FORMS = {
    "folder": write_folder,
    "FERG_DB_256": lambda raw: write_folder(raw) / "FERG_DB_256",
    "one character's parent": lambda raw: write_folder(raw / "a/b").parents[1],
    "archive": lambda raw: write_zip(raw.with_suffix(".zip")),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    builder = prepare(tmp_path, FORMS[form](tmp_path / "raw"))
    assert list(builder.info.splits) == ["train"]
    assert builder.info.features["label"].names == LABELS
    examples = {e["key"].decode(): e for e in builder.as_data_source(split="train")}
    assert examples.keys() == set(KEYS)
    for key, example in examples.items():
        character, expression = key.split("/")[0].split("_")
        assert example["subject"].decode() == character
        assert example["sequence"] == b""
        assert LABELS[example["label"]] == LABELS[EXPRESSIONS.index(expression)]
        assert example["image"][0, 0, 0] == 128  # Grey where transparent.
        np.testing.assert_array_equal(example["image"][..., 0], common.face_image(picture(key)))


def test_one_picture_is_in_memory_at_a_time(tmp_path, monkeypatch):
    read = []
    original = archives._read_small
    monkeypatch.setattr(
        archives, "_read_small", lambda file, path: read.append(path) or original(file, path)
    )
    builder = Builder(data_dir=tmp_path / "data")
    examples = builder._generate_examples(write_folder(tmp_path / "raw"))
    for count in (1, 2, 3):
        next(examples)
        assert len(read) == count


def error(tmp_path, manual_dir):
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, manual_dir)
    assert not list((tmp_path / "data").rglob("*1.0.0*"))
    return str(caught.value)


FIRST = next(iter(MEMBERS))
MALFORMED = {
    "nothing": (
        {"notes.txt": b""},
        "has no FERG_DB_256/<character>/<character>_<expression>/*.png (found: notes.txt)",
    ),
    "one less": (dict(list(MEMBERS.items())[1:]), "has 83 images, not 84"),
    "character less": (
        {name: content for name, content in MEMBERS.items() if "ray" not in name},
        "has 5 characters, not 6",
    ),
    "unknown character": (
        MEMBERS | {"FERG_DB_256/bob/bob_joy/1.png": b""},
        "is in folder 'bob_joy', not in <character>_<expression> of aia",
    ),
    "unknown expression": (MEMBERS | {"ray/ray_happy/1.png": b""}, "is in folder 'ray_happy'"),
    "twice": (MEMBERS | {f"copy/{FIRST}": b""}, "is a duplicate of"),
    "not square": (
        MEMBERS | {FIRST: png(picture("x")[:200])},
        "aia_anger_1.png has 256 x 200 pixels and is not square",
    ),
    "cut": (MEMBERS | {FIRST: png(picture("x"))[:900]}, "aia_anger_1.png is not a readable image"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    members, message = MALFORMED[case]
    assert message in error(tmp_path, write_folder(tmp_path / "raw", members))


def test_wrong_paths(tmp_path):
    assert "nowhere does not exist.\nAsk for FERG" in error(tmp_path, tmp_path / "nowhere")
