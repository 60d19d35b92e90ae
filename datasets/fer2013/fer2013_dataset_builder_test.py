"""Every source of FER-2013 in its original layout, and errors for malformed data."""

import gzip
import io
import logging
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import common
from datasets.fer2013 import copies, ferplus, rows, sources
from datasets.fer2013.fer2013_dataset_builder import Builder
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ["Training"] * 7 + ["PublicTest"] * 3 + ["PrivateTest"] * 2
COUNTS = {"train": 7, "validation": 3, "test": 2}
SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
EMOTIONS = [6, 5, 4, 3, 2, 1, 0, 3, 0, 6, 1, 3]
FERPLUS_HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
# By hand: votes, and the majority by Barsoum et al. (None: no example).
VOTES = [
    ((4, 0, 0, 1, 3, 2, 0, 0, 0, 0), None),  # 4 of 9 is no majority.
    ((0, 10, 0, 0, 0, 0, 0, 0, 0, 0), "happiness"),
    ((5, 1, 1, 1, 1, 1, 0, 0, 0, 0), "neutral"),  # 5 of 10 is no majority; 5 of 5 is.
    ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None),  # Not a face.
    ((0, 0, 0, 0, 0, 0, 0, 8, 2, 0), "contempt"),
    ((5, 0, 0, 5, 0, 0, 0, 0, 0, 0), None),  # A tie.
    ((0, 0, 0, 0, 2, 0, 0, 0, 8, 0), None),  # Unknown.
    ((0, 0, 6, 0, 0, 0, 4, 0, 0, 0), "surprise"),
    ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), None),  # Only single votes.
    ((0, 0, 0, 9, 0, 0, 0, 0, 1, 0), "sadness"),
    ((1, 0, 0, 0, 2, 7, 0, 0, 0, 0), "disgust"),
    ((0, 0, 0, 0, 0, 0, 6, 0, 2, 2), "fear"),
]
PIXELS = [np.random.default_rng(i).integers(0, 256, (48, 48), np.uint8) for i in range(12)]


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(Builder, "SPLIT_COUNTS", COUNTS)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def csv_rows():
    return [
        {"emotion": str(emotion), "pixels": " ".join(map(str, pixels.ravel())), "Usage": usage}
        for emotion, pixels, usage in zip(EMOTIONS, PIXELS, USAGES, strict=True)
    ]


def write_csv(path, columns=("emotion", "pixels", "Usage"), rows=None):
    """Column names may have spaces, as in `icml_face_data.csv`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = csv_rows() if rows is None else rows
    lines = [",".join(columns)]
    lines += [",".join(row[column.strip()] for column in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def write_ferplus(path, usages=USAGES, votes=None):
    votes = [vote for vote, _ in VOTES] if votes is None else votes
    lines = [FERPLUS_HEADER]
    for i, (usage, vote) in enumerate(zip(usages, votes, strict=False)):
        # The names are in reverse order, so joining by them gives wrong votes.
        lines.append(",".join([usage, f"fer{11 - i:07}.png", *map(str, vote)]))
    path.write_text("\n".join(lines) + "\n")


def jpeg(pixels, size=(48, 48), mode="L"):
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(file, format="JPEG")
    return file.getvalue()


def archive_members():
    """As in Kaggle's copy: test/ mixes two splits, and one file name occurs in two classes."""
    members = {}
    for i, (emotion, usage, pixels) in enumerate(zip(EMOTIONS, USAGES, PIXELS, strict=True)):
        folder = "train" if usage == "Training" else "test"
        number = 1000 if i == 1 else 1000 + i
        members[f"{folder}/{LABELS[emotion]}/{usage}_{number}.jpg"] = jpeg(pixels)
    return members


def write_zip(path, members=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (archive_members() if members is None else members).items():
            archive.writestr(name, data)


def write_folder(root, members=None):
    for name, data in (archive_members() if members is None else members).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def write_tar(path):
    write_csv(path.parent.parent / "tar" / "fer2013.csv")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(path.parent.parent / "tar", "fer2013")


CSV_SOURCES = {
    "fer2013.csv": lambda raw: write_csv(raw / "fer2013.csv"),
    "fer2013/fer2013.csv": lambda raw: write_csv(raw / "fer2013/fer2013.csv"),
    "fer2013.tar.gz": lambda raw: write_tar(raw / "fer2013.tar.gz"),
    "icml_face_data.csv": lambda raw: write_csv(
        raw / "icml_face_data.csv", ("emotion", " Usage", " pixels")
    ),
}
IMAGE_SOURCES = {
    "archive.zip": lambda raw: write_zip(raw / "archive.zip"),
    "": write_folder,
    "nested": lambda raw: write_folder(raw / "nested/archive"),
}


def write_gz(path, write):
    write(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()


def write_odd_csv(path):
    """A spreadsheet's CSV: BOM, CRLF, quotes, other columns, other case, another order."""
    lines = ['usage,"PIXELS",id, Emotion']
    for i, row in enumerate(csv_rows()):
        lines.append(f'{row["Usage"].lower()},"{row["pixels"]}",{i},{row["emotion"]}')
    path.write_bytes(("\ufeff" + "\r\n".join([*lines, "", ""])).encode())


def write_linked_folder(raw):
    disk = raw.parent / "another disk"
    write_folder(disk)
    for split in ("train", "test"):
        (raw / split).symlink_to(disk / split)
    (raw / "train" / "again").symlink_to(disk / "train")


def renamed(ending):
    return {name.replace(".jpg", ending): data for name, data in archive_members().items()}


def pngs(ending):
    members = {}
    for name, data in archive_members().items():
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).save(file, "PNG")
        members[name.replace(".jpg", ending)] = file.getvalue()
    return members


def zip_of_csv(raw, name="archive.zip", member="fer2013/fer2013.csv"):
    write_csv(raw.parent / "unzipped.csv")
    write_zip(raw / name, {member: (raw.parent / "unzipped.csv").read_bytes()})


JUNK = {
    "__MACOSX/train/angry/._Training_1.jpg": b"x",
    ".DS_Store": b"x",
    "train/angry/Thumbs.db": b"x",
    "train/angry/desktop.ini": b"x",
}
# Rows of a table are keyed by their order, images by their names.
OTHER_CSV_SOURCES = {
    "csv.gz": lambda raw: write_gz(raw / "fer2013.csv.gz", write_csv),
    "icml.csv.gz": lambda raw: write_gz(raw / "icml_face_data.csv.gz", write_csv),
    "odd csv": lambda raw: write_odd_csv(raw / "fer2013.csv"),
    "odd name": lambda raw: write_csv(raw / "archive (1)" / "FER2013.CSV"),
    "csv in a zip": zip_of_csv,
    "csv in a zip below": lambda raw: [(raw / "ä b").mkdir(), zip_of_csv(raw / "ä b")],
    "csv among others": lambda raw: [
        *(write_csv(raw / "train.csv"), write_csv(raw / "deep" / "icml_face_data.csv"))
    ],
}
OTHER_IMAGE_SOURCES = {
    "links": write_linked_folder,
    "png": lambda raw: write_folder(raw, pngs(".png")),
    "PNG": lambda raw: write_folder(raw / "archive (1)", pngs(".PNG")),
    "JPG": lambda raw: write_folder(raw, renamed(".JPG")),
    "jpeg": lambda raw: write_folder(raw, renamed(".jpeg")),
    "png named jpg": lambda raw: write_folder(raw, pngs(".jpg")),
    "zip of png": lambda raw: write_zip(raw / "archive.ZIP", pngs(".png")),
    "zip below": lambda raw: [
        *((raw / "archive (1)").mkdir(), write_zip(raw / "archive (1)/archive (1).zip"))
    ],
    "backslashes": lambda raw: write_zip(
        raw / "archive.zip", {n.replace("/", "\\"): d for n, d in archive_members().items()}
    ),
    "junk": lambda raw: write_folder(raw, archive_members() | JUNK),
    "junk in a zip": lambda raw: write_zip(raw / "archive.zip", archive_members() | JUNK),
    "unpacked beside a zip below": lambda raw: [
        *(write_folder(raw), (raw / "old").mkdir(), write_zip(raw / "old/archive.zip", {}))
    ],
}


def prepare(tmp_path, manual_dir, config="default"):
    builder = Builder(data_dir=tmp_path / "data", config=config)
    common.prepare(builder, manual_dir)
    return builder


def load(builder):
    return {
        split: {e["key"].decode(): e for e in builder.as_data_source(split=split)}
        for split in builder.info.splits
    }


def error(tmp_path, manual_dir, config="default"):
    """Returns the message of the failed preparation, after checking that it left no dataset."""
    builder = Builder(data_dir=tmp_path / "data", config=config)
    with pytest.raises(UserError) as caught:
        common.prepare(builder, manual_dir)
    assert not builder.data_path.exists()
    assert not list((tmp_path / "data").rglob("*incomplete*"))
    return str(caught.value)


@pytest.mark.parametrize("name", CSV_SOURCES | OTHER_CSV_SOURCES)
def test_csv_sources(tmp_path, raw, name):
    (CSV_SOURCES | OTHER_CSV_SOURCES)[name](raw)
    builder = prepare(tmp_path, raw)
    splits = load(builder)
    assert {split: len(examples) for split, examples in splits.items()} == COUNTS
    assert tuple(builder.info.features["label"].names) == LABELS
    for i, (emotion, usage) in enumerate(zip(EMOTIONS, USAGES, strict=True)):
        example = splits[SPLITS[usage]][f"row_{i:05}"]
        assert example["label"] == emotion
        np.testing.assert_array_equal(example["image"], PIXELS[i][..., None])


@pytest.mark.parametrize("name", IMAGE_SOURCES | OTHER_IMAGE_SOURCES)
def test_image_sources(tmp_path, raw, name):
    (IMAGE_SOURCES | OTHER_IMAGE_SOURCES)[name](raw)
    splits = load(prepare(tmp_path, raw))
    assert {split: len(examples) for split, examples in splits.items()} == COUNTS
    for member, data in archive_members().items():
        _, label, stem = member.removesuffix(".jpg").split("/")
        example = splits[SPLITS[stem.split("_")[0]]][f"{label}/{stem}"]
        assert LABELS[example["label"]] == label
        np.testing.assert_array_equal(
            example["image"], np.asarray(Image.open(io.BytesIO(data)))[..., None]
        )


def test_raw_data_that_cannot_be_written_to(tmp_path, raw):
    write_folder(raw)
    before = sorted(raw.rglob("*"))
    for path in (raw, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert prepare(tmp_path, raw).info.splits["train"].num_examples == 7
    finally:
        for path in (raw, *before):
            path.chmod(0o755)
    assert sorted(raw.rglob("*")) == before


def test_ferplus_finds_its_files_at_any_depth(tmp_path, raw):
    (raw / "FERPlus/data").mkdir(parents=True)
    write_ferplus(raw / "FERPlus/data/fer2013new.csv")
    (raw / "kaggle").mkdir()
    zip_of_csv(raw / "kaggle")
    assert prepare(tmp_path, raw, "ferplus").info.splits["validation"].num_examples == 2


def test_jpeg_bytes_are_stored_unchanged(raw):
    write_zip(raw / "archive.zip")
    stored = {face.image for face in sources.read(raw / "archive.zip")}
    assert stored == set(archive_members().values())


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013.tar.gz", "archive.zip"])
def test_manual_dir_may_be_the_file_itself(tmp_path, raw, name):
    (CSV_SOURCES | IMAGE_SOURCES)[name](raw)
    (raw / "other.zip").write_bytes(b"")
    assert prepare(tmp_path, str(raw / name)).info.splits["train"].num_examples == 7


def test_order_of_preference(raw):
    write_csv(raw / "train.csv")
    order = ["train.csv", "", "archive.zip", "icml_face_data.csv", "fer2013.tar.gz", "fer2013.csv"]
    for name in order:
        if name != "train.csv":
            (CSV_SOURCES | IMAGE_SOURCES)[name](raw)
        assert sources.find(raw) == raw / name


def test_train_csv_omits_the_other_splits_with_a_warning(tmp_path, raw, caplog):
    write_csv(raw / "train.csv", ("emotion", "pixels"), csv_rows()[:7])
    write_csv(raw / "test.csv", ("pixels",), csv_rows()[7:])
    with caplog.at_level(logging.WARNING):
        assert list(prepare(tmp_path, raw).info.splits) == ["train"]
    assert "test.csv has no labels" in caplog.text
    assert "no images of the validation split" in caplog.text
    assert "no images of the test split" in caplog.text


def test_hidden_files_and_text_in_an_archive_are_skipped(tmp_path, raw):
    extra = {"__MACOSX/train/angry/._Training_1.jpg": b"x", "README.txt": b"x", ".DS_Store": b"x"}
    write_zip(raw / "archive.zip", archive_members() | extra)
    prepare(tmp_path, raw)


def test_prepared_data_is_reused_without_manual_dir(tmp_path, raw):
    write_csv(raw / "fer2013.csv")
    prepare(tmp_path, raw)
    assert len(load(prepare(tmp_path, None))["train"]) == 7


def test_preparation_prints_nothing(tmp_path, raw, capfd):
    write_csv(raw / "fer2013.csv")
    prepare(tmp_path, raw)
    assert capfd.readouterr().out == ""


def changed_row(**values):
    def write(raw):
        rows = csv_rows()
        rows[4] |= values
        write_csv(raw / "fer2013.csv", rows=rows)

    return write


def with_member(name, data):
    return lambda raw: write_zip(raw / "archive.zip", archive_members() | {name: data})


def cut(name, keep):
    def write(raw):
        (CSV_SOURCES | IMAGE_SOURCES)[name](raw)
        data = (raw / name).read_bytes()
        (raw / name).write_bytes(data[: int(len(data) * keep)])

    return write


def damaged_member(raw):
    write_zip(raw / "archive.zip")
    with zipfile.ZipFile(raw / "archive.zip") as archive:
        start = archive.infolist()[3].header_offset
    data = bytearray((raw / "archive.zip").read_bytes())
    data[start + 200] ^= 0xFF
    (raw / "archive.zip").write_bytes(data)


PIXEL_ROW = csv_rows()[4]["pixels"]
NEW = "train/happy/Training_9.jpg"
MALFORMED = {
    "too few pixels": (changed_row(pixels="1 2 3"), "fer2013.csv, line 6: 3 pixels"),
    "too many pixels": (changed_row(pixels=PIXEL_ROW + " 7"), "line 6: 2305 pixels"),
    "not a number": (changed_row(pixels=PIXEL_ROW[:-3] + " x"), "line 6: pixel 'x'"),
    "pixel 256": (changed_row(pixels="256 " + PIXEL_ROW), "line 6: pixel '256'"),
    "pixel -1": (changed_row(pixels="-1 " + PIXEL_ROW), "line 6: pixel '-1'"),
    "pixel 1.5": (changed_row(pixels="1.5 " + PIXEL_ROW), "line 6: pixel '1.5'"),
    "usage": (changed_row(Usage="Test"), "line 6: Usage 'Test'"),
    "emotion 7": (changed_row(emotion="7"), "line 6: emotion '7'"),
    "emotion -1": (changed_row(emotion="-1"), "line 6: emotion '-1'"),
    "emotion name": (changed_row(emotion="happy"), "line 6: emotion 'happy'"),
    "extra value": (changed_row(emotion="3,3"), "line 6: 4 values for 3 columns"),
    "a row less": (lambda raw: write_csv(raw / "fer2013.csv", rows=csv_rows()[1:]), "6 images"),
    "a row more": (
        lambda raw: write_csv(raw / "fer2013.csv", rows=[*csv_rows(), csv_rows()[0]]),
        "8 images of the train split, not 7",
    ),
    "no rows": (lambda raw: write_csv(raw / "fer2013.csv", rows=[]), "has no images"),
    "no labels": (
        lambda raw: write_csv(raw / "fer2013.csv", ("pixels", "Usage")),
        "no column 'emotion'",
    ),
    "binary csv": (
        lambda raw: (raw / "fer2013.csv").write_bytes(b"emotion,pixels,Usage\n\xff\xfe\x00"),
        "not CSV text",
    ),
    "endless line": (changed_row(pixels="1 " * 100_000), "not CSV text"),
    "cut csv": (cut("fer2013.csv", 0.5), "values for 3 columns"),
    "cut tar": (cut("fer2013.tar.gz", 0.5), "not a complete tar.gz"),
    "cut gz": (
        lambda raw: [
            write_gz(raw / "fer2013.csv.gz", write_csv),
            (raw / "fer2013.csv.gz").write_bytes((raw / "fer2013.csv.gz").read_bytes()[:20_000]),
        ],
        "not a complete gz file",
    ),
    "two archives below": (
        lambda raw: [(raw / "x").mkdir(), write_zip(raw / "x/a.zip"), write_zip(raw / "x/b.zip")],
        "several archives (x/a.zip, x/b.zip)",
    ),
    "empty tar": (cut("fer2013.tar.gz", 0), "not a complete tar.gz"),
    "cut zip": (cut("archive.zip", 0.9), "not a complete zip"),
    "damaged zip": (damaged_member, "not a complete zip"),
    "not an image": (with_member(NEW, b"<html>"), f"{NEW} is not a readable image"),
    "cut image": (with_member(NEW, jpeg(PIXELS[0])[:700]), f"{NEW} is not a readable image"),
    "wrong size": (with_member(NEW, jpeg(PIXELS[0], (64, 48))), f"{NEW} has shape (48, 64)"),
    "colour": (with_member(NEW, jpeg(PIXELS[0], mode="RGB")), f"{NEW} has shape (48, 48, 3)"),
    "CMYK": (with_member(NEW, jpeg(PIXELS[0], mode="CMYK")), "Pillow mode CMYK"),
    "huge member": (with_member(NEW, bytes(2 << 20)), f"{NEW} is larger than 1048576 bytes"),
    "unknown class": (
        with_member("train/contempt/Training_9.jpg", jpeg(PIXELS[0])),
        "folder 'contempt'",
    ),
    "unknown prefix": (with_member("train/happy/im9.jpg", jpeg(PIXELS[0])), "im9.jpg is not named"),
    "twice": (
        lambda raw: [write_folder(raw / "archive"), write_folder(raw / "archive (1)")],
        "is a duplicate of",
    ),
    "two archives": (
        lambda raw: [write_zip(raw / "a.zip"), write_zip(raw / "b.zip")],
        "several archives (a.zip, b.zip)",
    ),
    "zip without images": (
        lambda raw: write_zip(raw / "challenge.zip", {"fer2013.tar.gz": b""}),
        "unpack it",
    ),
    "nothing known": (lambda raw: (raw / "notes.txt").write_text(""), "(found: notes.txt)"),
    "empty folder": (lambda raw: None, "is an empty folder.\nGet FER-2013"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, raw, case):
    write, message = MALFORMED[case]
    write(raw)
    assert message in error(tmp_path, raw)


def test_wrong_paths(tmp_path, raw):
    (raw / "faces.rar").write_bytes(b"")
    assert "nowhere does not exist.\nGet FER-2013" in error(tmp_path, raw / "nowhere")
    assert "faces.rar is not a .csv" in error(tmp_path, raw / "faces.rar")
    assert "no manual_dir was given.\nGet FER-2013" in error(tmp_path, None)


def test_a_later_run_starts_clean(tmp_path, raw):
    changed_row(Usage="?")(raw)
    error(tmp_path, raw)
    write_csv(raw / "fer2013.csv")
    # The remains of a run that was killed while writing.
    (tmp_path / "data/fer2013/default/incomplete.ABCDEF_1.1.0").mkdir()
    assert len(load(prepare(tmp_path, raw))["train"]) == 7


def test_an_error_while_writing_leaves_nothing(tmp_path, raw, monkeypatch):
    write_csv(raw / "fer2013.csv")

    def full_disk(self, examples):
        yield examples[0]["key"], examples[0]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Builder, "_generate_examples", full_disk)
    assert "No space left on device" in error(tmp_path, raw)


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013.tar.gz", "icml_face_data.csv"])
def test_ferplus_joins_by_row_order(tmp_path, raw, name):
    CSV_SOURCES[name](raw)
    write_ferplus(raw / "fer2013new.csv")
    builder = prepare(tmp_path, raw, "ferplus")
    splits = load(builder)
    names = builder.info.features["label"].names
    assert names == FERPLUS_HEADER.split(",")[2:10]
    assert sum(map(len, splits.values())) == sum(label is not None for _, label in VOTES) == 7
    for i, (votes, label) in enumerate(VOTES):
        example = splits[SPLITS[USAGES[i]]].get(f"row_{i:05}")
        if label is None:
            assert example is None
        else:
            assert names[example["label"]] == label
            np.testing.assert_array_equal(example["votes"], votes)
            np.testing.assert_array_equal(example["image"], PIXELS[i][..., None])


def test_a_majority_is_more_than_half_of_the_counted_votes():
    for votes, label in VOTES:
        assert ferplus.majority(votes) == label


FERPLUS_ERRORS: dict[str, tuple[dict, str]] = {
    "usage": ({"usages": [*USAGES[:6], "PublicTest", *USAGES[7:]]}, "line 8: Usage 'PublicTest'"),
    "fewer rows": ({"usages": USAGES[:-1]}, "fer2013new.csv has fewer rows"),
    "more rows": (
        {"usages": [*USAGES, "PrivateTest"], "votes": [VOTES[1][0]] * 13},
        "fer2013.csv has fewer rows",
    ),
    "vote": ({"votes": [VOTES[1][0], ("x", *VOTES[1][0][1:]), *([VOTES[1][0]] * 10)]}, "line 3"),
}


@pytest.mark.parametrize("case", FERPLUS_ERRORS)
def test_ferplus_malformed(tmp_path, raw, case):
    arguments, message = FERPLUS_ERRORS[case]
    write_csv(raw / "fer2013.csv")
    write_ferplus(raw / "fer2013new.csv", **arguments)
    assert message in error(tmp_path, raw, "ferplus")


def test_ferplus_needs_its_votes_and_the_row_order(tmp_path, raw):
    write_csv(raw / "fer2013.csv")
    assert "fer2013new.csv does not exist" in error(tmp_path, raw, "ferplus")
    (raw / "fer2013new.csv").write_text("a,b\n1,2\n")
    assert "no column 'Usage'" in error(tmp_path, raw, "ferplus")
    (raw / "fer2013.csv").unlink()
    write_zip(raw / "archive.zip")
    assert "give fer2013.tar.gz" in error(tmp_path, raw, "ferplus")
    (raw / "archive.zip").unlink()
    write_csv(raw / "train.csv", ("emotion", "pixels"), csv_rows()[:7])
    assert "give fer2013.tar.gz" in error(tmp_path, raw, "ferplus")


def row_table(guessed=()):
    """The rows of `archive_members`, where one name occurs in two classes."""
    table = {}
    for row, member in enumerate(archive_members()):
        _, label, name = member.removesuffix(".jpg").split("/")
        key = f"{label}/{name}" if row < 2 else name
        table[key] = rows.Row(row, row not in guessed)
    return table


def test_ferplus_joins_the_archive_by_the_table_of_rows(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(rows, "table", lambda: row_table(guessed=[4]))
    write_zip(raw / "archive.zip")
    write_ferplus(raw / "fer2013new.csv")
    splits = load(prepare(tmp_path, raw, "ferplus"))
    found = {key: example for split in splits.values() for key, example in split.items()}
    expected = {}
    for i, (member, (votes, label)) in enumerate(zip(archive_members(), VOTES, strict=True)):
        if label is not None and i != 4:  # votes of a guessed row are not used
            _, folder, name = member.removesuffix(".jpg").split("/")
            expected[f"{folder}/{name}"] = (label, votes)
    assert found.keys() == expected.keys()
    for key, (label, votes) in expected.items():
        assert ferplus.LABELS[found[key]["label"]] == label
        np.testing.assert_array_equal(found[key]["votes"], votes)
    soft = next(found[key] for key, (label, _) in expected.items() if label == "surprise")
    np.testing.assert_allclose(soft["soft_label"], [0, 0, 0.6, 0, 0, 0, 0.4, 0])


def test_votes_of_examples_of_any_source(tmp_path, raw, monkeypatch):
    monkeypatch.setattr(rows, "table", lambda: row_table(guessed=[4]))
    write_ferplus(raw / "fer2013new.csv")
    keys = ["row_00007", "row_00001", "angry/Training_1004", "surprise/Training_1000", "a/none"]
    keys[2] = next(key for key, row in row_table().items() if row.number == 4)
    keys[3] = next(key for key, row in row_table().items() if row.number == 1)
    votes = ferplus.votes_of(keys, raw / "fer2013new.csv")
    nothing = (0,) * 10
    np.testing.assert_array_equal(votes, [VOTES[7][0], VOTES[1][0], nothing, VOTES[1][0], nothing])
    with pytest.raises(UserError, match="has fewer rows"):
        ferplus.votes_of(["row_00012"], raw / "fer2013new.csv")


def test_votes_as_probabilities():
    votes = np.array([(4, 0, 0, 1, 3, 2, 0, 0, 0, 0), (0, 0, 0, 0, 2, 0, 0, 0, 8, 0), (1,) * 10])
    expected = [[4 / 9, 0, 0, 0, 3 / 9, 2 / 9, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
    np.testing.assert_allclose(ferplus.distribution(votes), expected, rtol=1e-6)


def test_the_table_of_rows_has_every_row_once():
    table = rows.table()
    assert sorted(row.number for row in table.values()) == list(range(35_887))
    assert sum(row.certain for row in table.values()) == 35_712
    ends = {"Training": 28_709, "PublicTest": 32_298, "PrivateTest": 35_887}
    for name, row in table.items():
        usage = name.rpartition("/")[2].split("_")[0]
        assert row.number < ends[usage]
        assert usage == "Training" or row.number >= 28_709
    assert [name for name in table if "/" in name and name.startswith("angry/")] == [
        "angry/Training_8475486"
    ]
    assert rows.find("row_00042") == (42, True)
    assert rows.find("happy/PublicTest_1") is rows.find("row_x") is None


def test_an_archive_is_checked_against_the_rows(raw, monkeypatch):
    write_csv(raw / "fer2013.csv")
    write_zip(raw / "archive.zip")
    table = row_table()
    monkeypatch.setattr(rows, "table", lambda: table)
    none = {"images": 12, "unknown": 0, "other label": 0, "other pixels": 0}
    # JPEG changes noise by many grey levels; different noise differs by 85.
    assert rows.check(raw / "archive.zip", raw / "fer2013.csv", tolerance=40) == none
    names = list(table)
    table[names[3]], table[names[4]] = table[names[4]], table[names[3]]
    del table[names[5]]
    found = rows.check(raw / "archive.zip", raw / "fer2013.csv", tolerance=40)
    assert found == {"images": 12, "unknown": 1, "other label": 2, "other pixels": 2}


@pytest.mark.parametrize("name", ["fer2013.csv", "archive.zip"])
def test_copies_are_marked(tmp_path, raw, monkeypatch, name):
    pixels = list(PIXELS)
    for copy, original in [(2, 0), (8, 0), (9, 1), (11, 8), (10, 7)]:
        pixels[copy] = pixels[original]
    monkeypatch.setattr(sys.modules[__name__], "PIXELS", pixels)
    (CSV_SOURCES | IMAGE_SOURCES)[name](raw)
    builder = prepare(tmp_path, raw)
    keys = [f"row_{i:05}" for i in range(12)]
    if name == "archive.zip":
        keys = [member.split("/", 1)[1].removesuffix(".jpg") for member in archive_members()]
    found = {
        key: e["copy_of"].decode() for split in load(builder).values() for key, e in split.items()
    }
    groups = [{0, 2, 8, 11}, {1, 9}, {7, 10}]
    for i, key in enumerate(keys):
        group = next((g for g in groups if i in g), {i})
        if found[key]:
            assert keys.index(found[key]) in group - {i}
            assert USAGES[keys.index(found[key])] in USAGES[: i + 1]
        else:
            assert key not in {keys[other] for other in group if found[keys[other]]}
    assert sum(copy != "" for copy in found.values()) == 5
    assert found[keys[8]] in (keys[0], keys[2])  # the training split comes first, in any file order
    assert found[keys[10]] == keys[7]


def test_copies_are_counted():
    def split(keys, labels, copies):
        images = np.zeros((len(keys), 48, 48, 1), np.uint8)
        return Split(images, np.array(labels), keys, [""] * len(keys), copies=copies)

    splits = {
        "train": split([*"abcd"], [0, 1, 2, 3], ["", "a", "", ""]),
        "validation": split([*"efgh"], [1, 5, 6, 6], ["a", "c", "", "g"]),
        "test": split([*"ij"], [6, 3], ["g", "d"]),
    }
    assert copies.count(splits) == {
        "faces": 10,
        "groups of identical faces": 4,
        "surplus copies": 6,
        "groups with several labels": 2,
        "surplus copies within train": 1,
        "validation faces also in train": 2,
        "validation faces also in train with the same label": 1,
        "test faces also in train": 1,
        "test faces also in train with the same label": 1,
    }


def test_tensorflow_is_not_needed(tmp_path, raw):
    """Prepares and reads in a process without loading TensorFlow, even if it is installed."""
    write_zip(raw / "archive.zip")
    program = (
        "import sys\n"
        "from datasets import common\n"
        "from datasets.fer2013.fer2013_dataset_builder import Builder\n"
        f"Builder.SPLIT_COUNTS = {COUNTS}\n"
        f"builder = Builder(data_dir={str(tmp_path / 'data')!r})\n"
        f"common.prepare(builder, {str(raw)!r})\n"
        "assert builder.as_data_source(split='test')[1]['image'].shape == (48, 48, 1)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


@pytest.mark.skipif("FER2013_DIR" not in os.environ, reason="FER2013_DIR is not set")
def test_real_data(tmp_path, monkeypatch):
    monkeypatch.undo()
    splits = load(prepare(tmp_path, os.environ["FER2013_DIR"]))
    assert len(splits["train"]) == 28_709
    labels = Counter(int(example["label"]) for example in splits["train"].values())
    assert [labels[i] for i in range(7)] == [3995, 436, 4097, 7215, 4830, 3171, 4965]
