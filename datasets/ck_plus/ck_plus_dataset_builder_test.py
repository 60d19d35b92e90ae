"""Both forms of CK+ in their original layout, and errors for malformed data."""

import io
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from skimage import data

from datasets import common
from datasets.ck_plus import faces
from datasets.ck_plus.ck_plus_dataset_builder import Builder
from deep_emotion_jax.errors import UserError

LABELS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "contempt", "neutral"]
# Sequence, code in the original, folder in CK+48, and label; the last sequence has no label.
SEQUENCES = [
    ("S005_001", 3, "disgust", "disgust"),
    ("S010_002", 7, "surprise", "surprise"),
    ("S010_004", 1, "anger", "angry"),
    ("S138_008", 2, "contempt", "contempt"),
    ("S999_003", 4, "fear", "fear"),
    ("S999_001", 5, "happy", "happy"),
    ("S999_002", 6, "sadness", "sad"),
    ("S011_001", None, None, None),
]
COUNTS = {"subjects": 4, "sequences": 7, "frames": 21}
LENGTHS = {name: 4 + i for i, (name, *_) in enumerate(SEQUENCES)}
ARCHIVES = {
    "cohn-kanade-images": "extended-cohn-kanade-images.zip",
    "Emotion": "Emotion_labels.zip",
    "Landmarks": "Landmarks.zip",
}


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(Builder, "COUNTS", COUNTS)


def frame_names(name):
    return [f"{name}_{i:08}" for i in range(1, LENGTHS[name] + 1)]


def picture(name, shape):
    """Noise that depends only on the name."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, shape, np.uint8)


def frame(name):
    # As in CK+, later sequences are in colour.
    return picture(name, (98, 128, 3) if name.startswith("S999") else (98, 128))


def landmarks(name):
    points = np.random.default_rng(list(name.encode())).uniform(0, 90, (68, 2))
    points[36:42], points[42:48] = (50, 40), (80, 44)
    return points


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def original(with_landmarks=True):
    """The files of the original distribution: name -> content."""
    members = {"cohn-kanade-images/S005/.DS_Store": b"x"}
    for name, code, *_ in SEQUENCES:
        folder = name.replace("_", "/")
        for key in frame_names(name):
            members[f"cohn-kanade-images/{folder}/{key}.png"] = png(frame(key))
            if with_landmarks:
                text = "\n".join(f"   {x:.7e}   {y:.7e}" for x, y in landmarks(key)) + "\n"
                members[f"Landmarks/{folder}/{key}_landmarks.txt"] = text.encode()
        if code:
            members[f"Emotion/{folder}/{key}_emotion.txt"] = f"   {code:.7e}\n".encode()
    return members


def ck48(sequences=SEQUENCES):
    members = {}
    for name, _, folder, _ in sequences:
        if folder:
            for key in frame_names(name)[-3:]:
                members[f"CK+48/{folder}/{key}.png"] = png(picture(key, (48, 48)))
    return members


def write_folder(root, members):
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_archives(root, members):
    for folder, archive in ARCHIVES.items():
        write_zip(root / archive, {n: c for n, c in members.items() if n.startswith(folder)})
    return root


def write_half_unpacked(root, members):
    """All archives, some of them also unpacked into a folder of the archive's name."""
    write_archives(root, members)
    images = {f"extended-cohn-kanade-images/{n}": c for n, c in members.items() if "-images" in n}
    return write_folder(root, images)


ORIGINALS = {
    "folders": lambda root: write_folder(root, original()),
    "nested": lambda root: write_folder(root / "data/CK+", original()).parents[1],
    "archives": lambda root: write_archives(root, original()),
    "half unpacked": lambda root: write_half_unpacked(root, original()),
    "one archive": lambda root: write_zip(root / "ck+.zip", original()),
}
CROPPED = {
    "folder": lambda root: write_folder(root, ck48()),
    "CK+48": lambda root: write_folder(root, ck48()) / "CK+48",
    "nested": lambda root: write_folder(root / "a/ck", ck48()).parents[1],
    "archive": lambda root: write_zip(root / "archive.zip", ck48()),
    "folder of archive": lambda root: write_zip(root / "archive.zip", ck48()).parent,
}


def prepare(tmp_path, manual_dir, config="last3"):
    builder = Builder(data_dir=tmp_path / "data", config=config)
    common.prepare(builder, manual_dir)
    return builder


def load(builder):
    assert list(builder.info.splits) == ["train"]
    return {e["key"].decode(): e for e in builder.as_data_source(split="train")}


def expected_keys(frames=3, labels=LABELS[:7]):
    """Key -> label, from the table above."""
    keys = {}
    for name, _, _, label in SEQUENCES:
        if label in labels:
            keys |= dict.fromkeys(frame_names(name)[-frames:], label)
            if "neutral" in labels:
                keys[frame_names(name)[0]] = "neutral"
    return keys


def check(builder, keys, image):
    examples = load(builder)
    names = builder.info.features["label"].names
    assert {key: names[example["label"]] for key, example in examples.items()} == keys
    for key, example in examples.items():
        assert example["subject"].decode() == key[:4]
        assert example["sequence"].decode() == key[:8]
        np.testing.assert_array_equal(example["image"][..., 0], image(key))


def cut(key):
    # Eyes (50, 40) and (80, 44): 30.265 apart, so a square of 75.66 around (65, 42).
    side = 2.5 * np.hypot(30, 4)
    return common.face_image(frame(key), common.Square(65 - side / 2, 42 - 0.375 * side, side))


@pytest.mark.parametrize("form", ORIGINALS)
def test_original(tmp_path, form):
    builder = prepare(tmp_path, ORIGINALS[form](tmp_path / "raw"))
    assert builder.info.features["label"].names == LABELS[:7]
    check(builder, expected_keys(), cut)


@pytest.mark.parametrize("form", CROPPED)
def test_ck48(tmp_path, form):
    builder = prepare(tmp_path, CROPPED[form](tmp_path / "raw"))
    check(builder, expected_keys(), lambda key: picture(key, (48, 48)))


def apexes(size, ending=".png", with_neutral=False):
    """One frame per sequence, cropped to some size, as in some copies of CK+."""
    members = {}
    for name, _, folder, _ in SEQUENCES:
        first, last = frame_names(name)[0], frame_names(name)[-1]
        if folder:
            members[f"CK+/{folder.upper()}/{last}{ending}"] = png(picture(last, size))
        if with_neutral:
            members[f"CK+/Neutral/{first}{ending}"] = png(picture(first, size))
    return members


@pytest.mark.parametrize(("size", "ending"), [((128, 128), ".PNG"), ((90, 90, 3), ".jpg")])
@pytest.mark.parametrize("config", ["apex", "last3"])
def test_one_frame_of_each_sequence_at_any_size(tmp_path, size, ending, config):
    raw = write_folder(tmp_path / "raw", apexes(size, ending))
    check(
        prepare(tmp_path, raw, config),
        expected_keys(1),
        lambda key: common.face_image(picture(key, size)),
    )


def test_neutral_first_frames_in_their_own_folder(tmp_path):
    raw = write_zip(tmp_path / "raw.zip", apexes((128, 128), with_neutral=True))
    # The neutral frame of the sequence without a label is skipped, as in the original.
    check(
        prepare(tmp_path, raw, "neutral8"),
        expected_keys(1, LABELS),
        lambda key: common.face_image(picture(key, (128, 128))),
    )
    assert "the config neutral8 reads neutral faces" in error(tmp_path, raw, "apex")


def test_whole_frames_in_class_folders_are_cropped_to_the_face(tmp_path):
    members = {}
    for name, _, folder, _ in SEQUENCES:
        if folder:
            members[f"{folder}/{frame_names(name)[-1]}.png"] = png(astronaut())
    examples = load(prepare(tmp_path, write_folder(tmp_path / "raw", members), "apex"))
    expected = common.face_image(astronaut(), faces.detect_square(astronaut()))
    for example in examples.values():
        np.testing.assert_array_equal(example["image"][..., 0], expected)


CONFIGS = {
    "last3": (3, LABELS[:7], 21),
    "last3_6": (3, LABELS[:6], 18),
    "apex": (1, LABELS[:7], 7),
    "neutral8": (3, LABELS, 28),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_configs(tmp_path, config):
    frames, labels, count = CONFIGS[config]
    keys = expected_keys(frames, labels)
    assert len(keys) == count
    raw = ORIGINALS["folders"](tmp_path / "raw")
    builder = prepare(tmp_path, raw, config)
    assert builder.info.features["label"].names == labels
    check(builder, keys, cut)
    if config != "neutral8":
        builder = prepare(tmp_path / "48", CROPPED["folder"](tmp_path / "raw48"), config)
        check(builder, keys, lambda key: picture(key, (48, 48)))


def test_default_config():
    assert [config.name for config in Builder.BUILDER_CONFIGS] == list(CONFIGS)


def test_ck48_in_full(tmp_path, monkeypatch):
    # 118 people and the real numbers of the classes.
    monkeypatch.undo()
    sizes = {"anger": 45, "contempt": 18, "disgust": 59, "fear": 25, "happy": 69, "sadness": 28}
    folders = [name for name, size in {**sizes, "surprise": 83}.items() for _ in range(size)]
    blank = png(np.zeros((48, 48), np.uint8))
    members = {
        f"CK+48/{folder}/S{i % 118:03}_{i // 118:03}_{frame:08}.png": blank
        for i, folder in enumerate(folders)
        for frame in (7, 8, 9)
    }
    raw = write_zip(tmp_path / "archive.zip", members)
    for config, count in {"last3": 981, "last3_6": 927, "apex": 327}.items():
        builder = prepare(tmp_path, raw, config)
        assert builder.info.splits["train"].num_examples == count
        assert f"{count} images" in builder.builder_config.description
    labels = Counter(example["label"] for example in builder.as_data_source(split="train"))
    assert [labels[i] for i in range(7)] == [45, 59, 25, 69, 28, 83, 18]


def test_landmarks_frame_the_face_by_the_eyes():
    points = np.full((68, 2), 1e3)
    points[36:42] = [(90, 100), (94, 96), (106, 96), (110, 100), (106, 104), (94, 104)]
    points[42:48] = points[36:42] + np.array([40, 0])
    left, top, side = faces.landmark_square(points)
    assert (left, top, side) == (120 - 50, 100 - 37.5, 100)
    # Mirroring the mouth has no effect.
    points[48:] = 0
    assert faces.landmark_square(points) == (left, top, side)


def astronaut():
    """A real face, in the public domain, in a frame of CK+'s size."""
    picture = Image.fromarray(data.astronaut()).resize((1024, 1024)).crop((100, 0, 740, 490))
    return common.to_grey(np.asarray(picture))


def test_detector_and_landmarks_give_similar_squares():
    square = faces.detect_square(astronaut())
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = (305, 202), (393, 206)  # measured in the picture
    expected = faces.landmark_square(points)
    np.testing.assert_allclose(square, expected, atol=0.1 * expected.side)
    assert faces.detect_square(np.full((490, 640), 128, np.uint8)) is None


def test_without_landmarks_the_face_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(Builder, "COUNTS", {"subjects": 1, "sequences": 1, "frames": 3})
    face = astronaut()
    empty = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (490, 1))
    frames = [empty, empty, np.roll(face, 40, 1), face, empty]
    members = {
        f"cohn-kanade-images/S005/001/S005_001_{i:08}.png": png(pixels)
        for i, pixels in enumerate(frames, 1)
    }
    members["Emotion/S005/001/S005_001_00000005_emotion.txt"] = b"   3.0000000e+00\n"
    raw = write_folder(tmp_path / "raw", members)
    examples = load(prepare(tmp_path, raw))
    # Frames without a found face use the square of the last face found.
    for i, found in {3: 3, 4: 4, 5: 4}.items():
        np.testing.assert_array_equal(
            examples[f"S005_001_{i:08}"]["image"][..., 0],
            common.face_image(frames[i - 1], faces.detect_square(frames[found - 1])),
        )


def error(tmp_path, manual_dir, config="last3"):
    builder = Builder(data_dir=tmp_path / "data", config=config)
    with pytest.raises(UserError) as caught:
        common.prepare(builder, manual_dir)
    assert not builder.data_path.exists()
    assert not list((tmp_path / "data").rglob("*incomplete*"))
    return str(caught.value)


def changed(members, remove="", **replace):
    members = {
        name: content for name, content in members.items() if not remove or remove not in name
    }
    for end, content in replace.items():
        (name,) = (name for name in members if end in name)
        members[name] = content
    return members


LABEL = "S010_004_00000006_emotion"
MALFORMED = {
    "nothing": ({"notes.txt": b""}, "found: notes.txt"),
    "no labels": (changed(original(), "Emotion"), "put the Emotion folder or Emotion_labels.zip"),
    "code 0": (changed(original(), **{LABEL: b"0"}), f"{LABEL}.txt has '0', not a number from"),
    "code 8": (changed(original(), **{LABEL: b"8.0"}), "has '8.0', not a number from 1 to 7"),
    "code 1.5": (changed(original(), **{LABEL: b"1.5"}), "has '1.5', not a number"),
    "code text": (changed(original(), **{LABEL: b"\xff"}), "not a number from 1 to 7"),
    "no apex": (
        changed(original(), "S010_004_00000006.png"),
        "labels the frame S010_004_00000006.png, which is missing",
    ),
    "short": (changed(original(), "S005_001_00000003.png"), None),
    "label less": (changed(original(), LABEL), "has 6 sequences, not 7"),
    "subject less": (changed(original(), "Emotion/S138"), "has 3 subjects, not 4"),
    "landmarks": (
        changed(original(), S010_004_00000006_landmarks=b"1 2\n3 4\n"),
        "00000006_landmarks.txt has numbers of shape (2, 2), not 68 finite pairs",
    ),
    "landmark text": (
        changed(original(), S010_004_00000006_landmarks=b"1 x"),
        "is not numeric",
    ),
    "landmark nan": (
        changed(original(), S010_004_00000006_landmarks=b"1 nan\n" * 68),
        "not 68 finite pairs",
    ),
    "no face": (original(with_landmarks=False), "the Landmarks folder or Landmarks.zip"),
    "cut png": (
        changed(original(), **{"S010_004_00000006.png": png(frame("x"))[:900]}),
        "00000006.png is not a readable image",
    ),
    "both forms": (original() | ck48(), "is a duplicate of"),
    "two halves": (
        changed(original(), "S010_004") | ck48(SEQUENCES[2:3]),
        "has both CK+48, such as",
    ),
    "twice": (
        ck48() | {f"copy/{name}": content for name, content in ck48().items()},
        "is a duplicate of",
    ),
    "unknown class": (
        ck48() | {"CK+48/neutral/S005_001_00000001.png": b""},
        "is in folder 'neutral', neither in one of anger, contempt",
    ),
    "two classes": (
        ck48() | {"CK+48/fear/S005_001_00000001.png": b""},
        "put one sequence in two classes",
    ),
    "a frame more": (
        ck48() | {"CK+48/disgust/S005_001_00000001.png": b""},
        "has 22 frames, not 21",
    ),
    "a frame less": (changed(ck48(), "S005_001_00000004"), "has 20 frames, not 21"),
    "other size": (
        changed(ck48(), **{"S010_004_00000006": png(picture("x", (64, 48)))}),
        "S010_004_00000006.png has 48 x 64 pixels, not 48 x 48",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case, packed):
    members, message = MALFORMED[case]
    raw = tmp_path / "raw"
    raw = write_zip(tmp_path / "raw.zip", members) if packed else write_folder(raw, members)
    if message is None:  # A frame before the last three may be missing.
        assert len(load(prepare(tmp_path, raw))) == 21
    else:
        assert message in error(tmp_path, raw)


def test_ck48_has_no_neutral_frames(tmp_path):
    raw = CROPPED["folder"](tmp_path / "raw")
    assert "CK+48, which has no first frames" in error(tmp_path, raw, "neutral8")


def test_wrong_paths(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is an empty folder.\nAsk for CK+" in error(tmp_path, tmp_path / "empty")
    assert "nowhere does not exist.\nAsk for CK+" in error(tmp_path, tmp_path / "nowhere")
    assert "no manual_dir was given.\nAsk for CK+" in error(tmp_path, None)
