"""Folders as users have them: divided or not, of all kinds of pictures, and with mistakes."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from configs import default
from datasets import common
from datasets.folder.folder_dataset_builder import Builder, divide, find_pictures, read_config
from datasets.load import load_dataset
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference.predictor import Predictor


def write(root, counts, size=(60, 50), suffix=".png"):
    """Pictures of noise: `counts` of each folder."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}{suffix}")
    return root


def prepare(root, data_dir, detector="none"):
    builder = Builder(data_dir=data_dir, config=read_config(root, detector))
    common.prepare(builder, root)
    return {
        split: {e["key"].decode(): e for e in builder.as_data_source(split=split)}
        for split in builder.info.splits
    }, builder


def test_classes_are_divided_by_hash(tmp_path):
    root = write(tmp_path / "mine", {"smile": 20, "frown": 20, "blank": 2})
    splits, builder = prepare(root, tmp_path / "data")
    assert builder.info.features["label"].names == ["blank", "frown", "smile"]
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 14 + 14 + 1,
        "validation": 3 + 3 + 1,
        "test": 3 + 3,
    }
    keys = [key for split in splits.values() for key in split]
    assert len(set(keys)) == len(keys) == 42
    for split in splits.values():
        for key, example in split.items():
            name = key.split("/")[0]
            assert builder.info.features["label"].int2str(int(example["label"])) == name
    key, example = next(iter(splits["train"].items()))
    expected = common.face_image(np.asarray(Image.open(root / key)))
    np.testing.assert_array_equal(example["image"][..., 0], expected)


def test_faces_are_detected_and_cropped_as_in_predict(tmp_path, caplog):
    """Training uses the detected faces; a picture without one is reported and skipped."""
    root = write(tmp_path / "mine", {"happy": 2, "sad": 3})
    photo = skimage.data.astronaut()
    for file in root.glob("*/0[0-1].png"):
        Image.fromarray(photo).save(file)
    plain, _ = prepare(root, tmp_path / "data")
    with caplog.at_level("WARNING", "absl"):
        found, _ = prepare(root, tmp_path / "data", "builtin")
    assert sum(map(len, plain.values())) == 5
    assert {key for split in found.values() for key in split} == {
        f"{label}/0{i}.png" for label in ("happy", "sad") for i in (0, 1)
    }
    assert f"no face found in {root / 'sad' / '02.png'}" in caplog.text
    (face,) = Predictor.from_pretrained("deep_emotion.fer2013").predict(photo).faces
    for split in found.values():
        for example in split.values():
            np.testing.assert_array_equal(example["image"][..., 0], face.pixels)


def test_only_a_folder_accepts_a_detector(tmp_path):
    config = default.get_config()
    config.detector, config.data_dir = "builtin", str(tmp_path)
    with pytest.raises(UserError, match=r"config\.detector='builtin'.*config\.dataset='folder'"):
        load_dataset(config)


def test_the_split_depends_only_on_keys(tmp_path):
    counts = {"a": 9, "b": 7}
    one, two = write(tmp_path / "one", counts), write(tmp_path / "two", counts, size=(48, 48))
    first, second = (divide(find_pictures(root), root) for root in (one, two))
    assert {k: list(v) for k, v in first.items()} == {k: list(v) for k, v in second.items()}


def test_a_given_split_is_kept(tmp_path):
    root = write(
        tmp_path, {"train/a": 3, "train/b": 1, "validation/a": 1, "test/b": 2, "test/a/deep": 1}
    )
    divided = divide(find_pictures(root), root)
    assert {split: sorted(files) for split, files in divided.items()} == {
        "train": ["a/00.png", "a/01.png", "a/02.png", "b/00.png"],
        "validation": ["a/00.png"],
        "test": ["a/deep/00.png", "b/00.png", "b/01.png"],
    }


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("training", "dev", "testing"),
        ("archive (1)/TRAIN", "archive (1)/VAL", "archive (1)/TEST"),
    ],
)
def test_splits_have_several_names(tmp_path, names):
    counts = {}
    for name, count in zip(names, (5, 3, 2), strict=True):
        counts |= {f"{name}/happy": count, f"{name}/sad": count}
    root = write(tmp_path / "mine", counts)
    (root / "__MACOSX").mkdir()
    (root / ".DS_Store").write_bytes(b"x")
    divided = divide(find_pictures(root), root)
    assert {split: len(files) for split, files in divided.items()} == {
        "train": 10,
        "validation": 6,
        "test": 4,
    }
    assert next(iter(divided["train"])) == "happy/00.png"


def test_links_in_class_folders_are_followed(tmp_path):
    disk = write(tmp_path / "disk", {"sad": 4, "album": 3, "one": 1})
    root = write(tmp_path / "mine", {"happy": 2, "happy/deep": 1}, suffix=".JPG")
    (root / "sad").symlink_to(disk / "sad")
    (root / "happy/album").symlink_to(disk / "album")
    (root / "happy/one.png").symlink_to(disk / "one/00.png")
    (root / "happy/deep/circle").symlink_to(root / "happy")
    found = find_pictures(root)[""]
    assert sorted(found) == [
        *("happy/00.JPG", "happy/01.JPG", "happy/album/00.png", "happy/album/01.png"),
        *("happy/album/02.png", "happy/deep/00.JPG", "happy/one.png"),
        *("sad/00.png", "sad/01.png", "sad/02.png", "sad/03.png"),
    ]


def test_a_folder_is_a_class_without_a_train_folder(tmp_path):
    root = write(tmp_path, {"test": 3, "val": 3})  # what tests look like, and what is valid
    assert {key.split("/")[0] for key in find_pictures(root)[""]} == {"test", "val"}


def test_a_missing_validation_split_is_taken_from_train(tmp_path):
    root = write(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 4})
    divided = divide(find_pictures(root), root)
    assert [len(divided[split]) for split in ("train", "validation", "test")] == [16, 4, 4]


def test_a_changed_folder_is_prepared_again(tmp_path):
    root = write(tmp_path / "mine", {"a": 4, "b": 4})
    before = read_config(root).name
    assert read_config(root).name == before
    write(root, {"b": 5})
    assert read_config(root).name != before


def test_unreadable_images_are_reported_and_counted(tmp_path, caplog):
    root = write(tmp_path / "mine", {"a": 8, "b": 8})
    files = divide(find_pictures(root), root)["train"]
    broken = next(iter(files))
    files[broken].write_bytes(b"no picture")
    splits, _ = prepare(root, tmp_path / "data")
    assert broken not in splits["train"]
    assert str(files[broken]) in caplog.text
    assert f"1 of {len(files)} train images" in caplog.text


MISTAKES = {
    "nothing": ({}, "fewer than two class folders"),
    "one class": ({"a": 3}, "fewer than two class folders"),
    "one picture": ({"a": 3, "b": 1}, "class 'b' has one picture"),
    "empty class": ({"a": 3, "b": 0}, "b has no picture"),
    "class only in test": ({"train/a": 3, "train/b": 3, "test/c": 1}, "'c' is in test, but not"),
    "a split twice": (
        {"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1},
        "two folders for the validation split, 'val' and 'valid'",
    ),
    "half divided": ({"train/a": 3, "train/b": 3, "happy": 1}, "also 'happy'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(tmp_path, case):
    counts, message = MISTAKES[case]
    with pytest.raises(UserError, match=message):
        read_config(write(tmp_path, counts))


def test_a_class_of_unreadable_images_gives_an_error(tmp_path):
    root = write(tmp_path / "mine", {"a": 4, "b": 4})
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no train image of b can be read"):
        prepare(root, tmp_path / "data")


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no manual_dir was given"):
        read_config(None)
