"""JAFFE in its true names and numbers, and all that can be wrong with it."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import common
from datasets.jaffe.jaffe_dataset_builder import Builder, parse_name
from deep_emotion_jax.errors import UserError

LABELS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
CODES = ["AN", "DI", "FE", "HA", "SA", "SU", "NE"]
# The indices of each subject's shots, in the order of CODES, if not 1, 2, 3.
SUBJECTS = ["KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM"]
OTHER_SHOTS = {
    ("KA", "FE"): (1, 2, 3, 4),
    ("KA", "HA"): (1, 2, 3, 4),
    ("KL", "DI"): (1, 2, 3, 4),
    ("KM", "DI"): (1, 3),
    ("KM", "HA"): (1, 2, 3, 4),
    ("KM", "SA"): (1, 2, 3, 5),
    ("KR", "HA"): (1, 2),
    ("NM", "DI"): (1, 3),
    ("YM", "FE"): (1, 2, 3, 4),
}
STEMS = [
    f"{subject}.{code}{shot}.{10 * i + j}"
    for i, subject in enumerate(SUBJECTS)
    for j, code in enumerate(CODES)
    for shot in OTHER_SHOTS.get((subject, code), (1, 2, 3))
]


def picture(stem):
    """A block pattern that the name alone decides, shifted off the crop's own grid."""
    blocks = np.random.default_rng(list(stem.encode())).integers(0, 256, (32, 32), np.uint8)
    return np.roll(blocks.repeat(8, 0).repeat(8, 1), 3, 0)


def encoded(pixels, kind="TIFF"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def members(stems=STEMS):
    extra = {"jaffe/README_FIRST.txt": b"x", "jaffe/.DS_Store": b"x", "__MACOSX/._a.tiff": b"x"}
    return extra | {f"jaffe/{stem}.tiff": encoded(picture(stem)) for stem in stems}


def write_folder(root, members):
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def prepare(tmp_path, manual_dir):
    builder = Builder(data_dir=tmp_path / "data")
    common.prepare(builder, manual_dir)
    return builder


def error(tmp_path, manual_dir):
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, manual_dir)
    assert not list((tmp_path / "data").rglob("*1.0.0*"))
    return str(caught.value)


@pytest.mark.parametrize("form", ["folder", "archive", "archive beside its folder"])
def test_all_213(tmp_path, form):
    raw = tmp_path / "raw"
    write_folder(raw, members() if form != "archive" else {"notes.txt": b""})
    if form != "folder":
        write_zip(raw / "jaffe.zip", members())
    builder = prepare(tmp_path, raw)
    assert list(builder.info.splits) == ["train"]
    assert builder.info.features["label"].names == LABELS
    examples = {e["key"].decode(): e for e in builder.as_data_source(split="train")}
    assert examples.keys() == set(STEMS)
    for stem, example in examples.items():
        assert example["subject"].decode() == stem[:2]
        assert example["sequence"].decode() == stem[:5]
        assert LABELS[example["label"]] == LABELS[CODES.index(stem[3:5])]
    # 30 angry, 29 disgusted and so on, as published.
    counts = Counter(int(example["label"]) for example in examples.values())
    assert [counts[i] for i in range(7)] == [30, 29, 32, 31, 31, 30, 30]
    stem = "KM.SA5.24"
    np.testing.assert_array_equal(
        examples[stem]["image"][..., 0],
        common.face_image(picture(stem), common.Square(48, 60, 160)),
    )


def palette(pixels):
    """As 23 of the pictures are: a TIFF whose palette is grey."""
    image = Image.fromarray(pixels).convert("P")
    image.putpalette(bytes(np.repeat(np.arange(256, dtype=np.uint8), 3)))
    image.putdata(pixels.ravel().tolist())
    file = io.BytesIO()
    image.save(file, "TIFF")
    return file.getvalue()


OTHER_FORMS = {
    "palette": lambda stem: (f"jaffe/{stem}.tiff", palette(picture(stem))),
    "no suffix": lambda stem: (f"jaffe/{stem}", encoded(picture(stem))),
    "RGB": lambda stem: (f"{stem}.png", encoded(np.stack([picture(stem)] * 3, -1), "PNG")),
    "wrong suffix": lambda stem: (f"{stem}.jpg", encoded(picture(stem), "PNG")),
    "JPG": lambda stem: (
        f"a b/{stem}.JPG",
        encoded(np.stack([picture(stem)] * 3, -1), "JPEG"),
    ),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_forms_give_the_same_faces(tmp_path, form):
    # A README without suffix, a checksum, and a link to the parent folder are not pictures.
    raw = write_folder(
        tmp_path / "raw", dict(map(OTHER_FORMS[form], STEMS)) | {"checksum.md5": b"", "README": b""}
    )
    (raw / "loop").symlink_to(raw)
    examples = {e["key"].decode(): e for e in prepare(tmp_path, raw).as_data_source(split="train")}
    assert examples.keys() == set(STEMS)
    for stem in ("KA.AN1.0", "KM.SA5.24"):
        expected = common.face_image(picture(stem), common.Square(48, 60, 160))
        difference = np.abs(examples[stem]["image"][..., 0].astype(int) - expected)
        assert difference.max() <= (8 if form == "JPG" else 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KA.AN1.39.tiff", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("KM.NE1.1.tiff", ("KM.NE1.1", "KM", "neutral", "KM.NE")),
        ("ka.an1.39.TIF", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("KA-AN1-39.png", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("KA_AN1_39.jpg", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("KA..AN1..39.tiff", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("KA.AN1.39..tiff", ("KA.AN1.39", "KA", "angry", "KA.AN")),
        ("NA.NE 1.199.tiff", ("NA.NE1.199", "NA", "neutral", "NA.NE")),
        ("TM.DI3.tiff", ("TM.DI3", "TM", "disgust", "TM.DI")),
        ("MK.FE2.131", ("MK.FE2.131", "MK", "fear", "MK.FE")),
        ("UY.SU.tiff", ("UY.SU", "UY", "surprise", "UY.SU")),
    ],
)
def test_names(name, expected):
    assert parse_name(Path("jaffe") / name) == expected


@pytest.mark.parametrize(
    "name", ["AB.AN1.1", "KA.XX1.1", "KA", "AN1.39", "xKA.AN1.39", "KA.AN1.39 (1)", "KA.AN1.39.b"]
)
def test_unknown_subjects_and_expressions_give_an_error(name):
    with pytest.raises(UserError, match=r"is not named like KA\.AN1\.39\.tiff: one of KA, KL"):
        parse_name(Path("jaffe") / f"{name}.tiff")


NEW = "jaffe/KA.AN9.999.tiff"
MALFORMED = {
    "nothing": ({"notes.txt": b""}, "has no KA.AN1.39.tiff and so on (found: notes.txt)"),
    "one less": (members(STEMS[1:]), "has 212 images, not 213"),
    "one more": (members() | {NEW: encoded(picture("x"))}, "has 214 images, not 213"),
    "subject less": (members([s for s in STEMS if s[:2] != "YM"]), "has 9 subjects, not 10"),
    "unknown": (members() | {"jaffe/face.png": b""}, "face.png is not named like KA.AN1.39"),
    "twice": (members() | {"jaffe/ka-an1-0.tif": b""}, "is a duplicate of"),
    "size": (
        members() | {f"jaffe/{STEMS[0]}.tiff": encoded(picture("x")[:200])},
        f"{STEMS[0]}.tiff has 256 x 200 pixels, not 256 x 256",
    ),
    "cut": (
        members() | {f"jaffe/{STEMS[0]}.tiff": encoded(picture("x"))[:9000]},
        f"{STEMS[0]}.tiff is not a readable image",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    content, message = MALFORMED[case]
    assert message in error(tmp_path, write_folder(tmp_path / "raw", content))


def test_wrong_paths(tmp_path):
    assert "nowhere does not exist.\nAsk for JAFFE" in error(tmp_path, tmp_path / "nowhere")
    (tmp_path / "faces.rar").write_bytes(b"")
    assert "faces.rar is not a complete zip archive" in error(tmp_path, tmp_path / "faces.rar")
