"""Predictions from pictures through the API and the command, and their drawings."""

import csv
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import av
import films
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from commands import GOLDEN_FILES
from flax import nnx
from PIL import Image

from deep_emotion_jax import Predictor, load_pretrained
from deep_emotion_jax.__main__ import main
from deep_emotion_jax.data import video
from deep_emotion_jax.data.crop import Box
from deep_emotion_jax.data.detectors import FoundFace, whole_picture
from deep_emotion_jax.data.pictures import Picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import drawing
from deep_emotion_jax.inference.predictor import BATCH, Face, Prediction
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import Trained

QUICK = {"xla_backend_optimization_level": 0}  # Compiles in a fifth of the time.
GOLDEN = GOLDEN_FILES / "pretrained_logits.npz"
TEMPERATURE = 0.8450  # of deep_emotion.fer2013, see its card


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("deep_emotion.fer2013")


@pytest.fixture(scope="module")
def of_faces():
    return Predictor.from_pretrained("deep_emotion.fer2013", whole_picture, mirror=False)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return file["images"], np.asarray(
            jax.nn.softmax(file["deep_emotion.fer2013"] / TEMPERATURE)
        )


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


def small(attention):
    """A network with two classes and random weights."""
    return nnx.jit(lambda: DeepEmotion(2, attention=attention, width=0.2, rngs=nnx.Rngs(0)))()


def probabilities(prediction):
    return [list(face.probabilities.values()) for face in prediction.faces]


def test_the_astronaut_is_happy(predictor, astronaut):
    (face,) = predictor.predict(astronaut).faces
    assert face.expression == "happy"
    assert face.probabilities["happy"] > 0.9
    assert sum(face.probabilities.values()) == pytest.approx(1)
    left, top, side = face.box
    assert left < 224 < left + side
    assert top < 117 < top + side


def test_paths_arrays_and_images_agree(predictor, astronaut):
    array = skimage.data.astronaut()
    expected = probabilities(predictor.predict(astronaut))
    for same in (str(astronaut), array, array / 255, Image.fromarray(array)):
        assert probabilities(predictor.predict(same)) == expected


def test_probabilities_are_those_of_the_network(of_faces, golden):
    images, expected = golden
    for image, row in zip(images, expected, strict=True):
        (face,) = of_faces.predict(image).faces
        np.testing.assert_array_equal(face.pixels, image[..., 0])
        np.testing.assert_allclose(list(face.probabilities.values()), row, atol=1e-4)
        assert face.expression == list(face.probabilities)[row.argmax()]


def test_amplification_of_faint_faces_is_limited(of_faces, golden):
    """The network's minimum contrast applies to images in [0, 1], not in [0, 255]."""
    bright = golden[0][0] > 128
    faint = of_faces.predict((100 + bright).astype(np.uint8))
    strong = of_faces.predict((255 * bright).astype(np.uint8))
    assert np.abs(np.subtract(probabilities(faint), probabilities(strong))).max() > 1e-2


@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1, 3 * BATCH])
def test_batches_keep_order_and_all_faces(of_faces, golden, count):
    images, expected = golden
    pixels = np.repeat(images, 3, axis=3)
    pictures = (Picture(str(i), pixels[i % len(pixels)]) for i in range(count))
    predictions = list(of_faces.stream(pictures))
    assert [prediction.picture.source for prediction in predictions] == [
        str(i) for i in range(count)
    ]
    for i, prediction in enumerate(predictions):
        np.testing.assert_allclose(
            probabilities(prediction), [expected[i % len(pixels)]], atol=1e-4
        )


def test_pictures_with_many_faces_and_with_none(golden):
    images, expected = golden
    row = np.concatenate(list(np.repeat(images, 3, axis=3)), axis=1)

    def columns(picture):
        return [FoundFace(Box(x, 0, 48)) for x in range(0, picture.shape[1] - 47, 48)]

    predictor = Predictor(load_pretrained("deep_emotion.fer2013"), columns, mirror=False)
    wide = np.concatenate([row] * 5, axis=1)  # More than a batch.
    pictures = [Picture("", pixels) for pixels in (row[:, :47], wide, row[:, :96], row[:, :40])]
    none, many, two, none_again = predictor.stream(pictures)
    assert none.faces == none_again.faces == ()
    np.testing.assert_allclose(probabilities(many), np.tile(expected, (5, 1)), atol=1e-4)
    np.testing.assert_allclose(probabilities(two), expected[:2], atol=1e-4)


def test_the_network_is_compiled_once_for_all_counts(of_faces, golden):
    images = np.repeat(golden[0], 3, axis=3)
    for count in (1, 5, 2 * BATCH + 3):
        list(of_faces.stream(Picture("", images[0]) for _ in range(count)))
    assert of_faces._program._cache_size() == 1


def test_at_most_one_batch_of_pictures_is_read_ahead(predictor):
    read = 0

    def endless(pixels):
        nonlocal read
        while True:
            read += 1
            yield Picture("", pixels)

    for pixels, most in (
        (np.zeros((8, 8, 3), np.uint8), BATCH),
        (np.zeros((1, 1 << 25, 3), np.uint8), 1),
    ):
        read = 0
        next(predictor.stream(endless(pixels)))
        assert read == most


@pytest.mark.parametrize(("attention", "inset"), [("features", 6), ("image", 0), ("none", None)])
def test_region_of_the_identity(attention, inset):
    """The initial theta covers the whole map: the image, or the centres of the features."""
    model = small(attention)

    def frame(picture):
        return [FoundFace(Box(10, 20, 96))]

    (face,) = (
        Predictor(Trained(model, ("a", "b"), {}), frame)
        .predict(np.zeros((150, 150), np.uint8))
        .faces
    )
    if inset is None:
        assert face.region is None
        return
    a, b = 2 * inset, 96 - 2 * inset  # The box has two pixels for each of the network's.
    corners = np.array([(a, a), (b, a), (b, b), (a, b)])
    np.testing.assert_allclose(face.region - [10, 20], corners, atol=1e-4)


def test_region_follows_theta():
    model = small("image")
    # Half the size, moved right by a quarter of the frame's side.
    model.localization.theta.bias[...] = jnp.array([0.5, 0, 0.5, 0, 0.5, 0])
    (face,) = (
        Predictor(Trained(model, ("a", "b"), {}), whole_picture)
        .predict(np.zeros((100, 100), np.uint8))
        .faces
    )
    np.testing.assert_allclose(face.region, [(50, 25), (100, 25), (100, 75), (50, 75)], atol=1e-4)


def test_span_matches_the_centres_of_the_features():
    """The mean position of the pixels that affect the outermost features gives `span`."""
    model = small("none")
    for stage in model.stages:
        for conv in stage.convs:
            conv.kernel[...] = jnp.ones_like(conv.kernel[...])

    def feature(images, index):
        x = images
        for stage in model.stages:
            x = stage(x)
        return x[:, index, index].sum()

    # With all weights 1 and a gradient image, max-pooling takes the last of two rows; with the
    # opposite gradient, the first. Their mean is the centre.
    ramp = jnp.linspace(1, 2, 48)[:, None, None] * jnp.ones((1, 48, 1))
    gradient = jax.jit(jax.grad(feature), compiler_options=QUICK)
    centres = []
    for index in (0, 8):
        rows = gradient(jnp.stack([ramp, ramp[::-1]]), index).sum((0, 2, 3))
        centres.append(float((rows * jnp.arange(48)).sum() / rows.sum()))
    low, high = centres
    cell = (high - low) / 8
    assert low - cell / 2 == pytest.approx(23.5 - 18, abs=1e-3)
    assert high + cell / 2 == pytest.approx(23.5 + 18, abs=1e-3)


def test_weights_that_overflow_give_an_error():
    model = small("none")
    model.fc2.bias[...] = jnp.array([jnp.inf, 0])
    with pytest.raises(UserError, match="not finite"):
        Predictor(Trained(model, ("a", "b"), {}), whole_picture).predict(np.zeros((9, 9)))


def drawn_face(box=Box(0, 0, 48), region=None):  # noqa: B008 (a named tuple)
    shares = {"happy": 0.9, "sad": 0.1}
    return Face(box, "happy", shares, region, np.full((48, 48), 99, np.uint8))


def drawn(pixels, boxes, region=None):
    faces = tuple(drawn_face(box, region) for box in boxes)
    return drawing.draw(Prediction(Picture("a.png", pixels), faces), [np.eye(48) for _ in faces])


def test_boxes_are_drawn_at_their_positions():
    image = np.asarray(drawn(np.zeros((960, 1280, 3), np.uint8), [Box(200, 300, 400)]))
    colour = (0xE6, 0x9F, 0x00)
    for y, x in ((500, 200), (500, 600), (700, 400), (300, 590)):
        assert (image[y, x] == colour).all()
    assert (image[500, 220:580] == 0).all()
    assert image.shape[1] > 1280 + 400  # The card is beside the picture.


@pytest.mark.parametrize("shape", [(1, 1), (40, 4000), (3000, 50)])
@pytest.mark.parametrize("count", [0, 9])
def test_any_picture_can_be_drawn(shape, count):
    region = np.array([(-50, -50), (9e4, 0), (9, 9), (0, 9)], float)
    image = drawn(np.zeros((*shape, 3), np.uint8), [Box(-3, -4, 40)] * count, region)
    cards = -(-count // max(1, image.height // drawing.CARD[1])) * drawing.CARD[0]
    assert image.width >= cards


@pytest.mark.parametrize(
    ("width", "height", "count"), [(1200, 600, 32), (275, 183, 4), (640, 480, 8), (1200, 600, 100)]
)
def test_an_annotated_crowd_is_not_a_strip(width, height, count):
    boxes = [Box(10 + i, 10, 40) for i in range(count)]
    image = drawn(np.full((height, width, 3), 90, np.uint8), boxes)
    assert image.width <= 4 * image.height
    assert image.height <= 4 * image.width


def test_labels_grow_with_the_picture():
    def label_rows(side):
        image = np.asarray(drawn(np.zeros((side, side, 3), np.uint8), [Box(0, side / 2, side / 4)]))
        return (image[: side // 2 - 4, :20] == (0xE6, 0x9F, 0x00)).all(-1).any(1).sum()

    assert label_rows(1600) > 1.5 * label_rows(640) > 10


def test_a_small_drop_is_drawn_faintly():
    face = drawn_face()
    strong, weak = (
        np.asarray(drawing.with_importance(face, np.full((48, 48), drop), 48), int)[24, 24]
        for drop in (0.4, 0.02)
    )
    grey = np.array([99] * 3)
    assert np.abs(weak - grey).max() < 0.2 * np.abs(strong - grey).max()


def test_no_two_pictures_share_a_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sources = ["a.png", "a.jpg", "b/a.png", "../a.png", "/a.png", "webcam"]
    paths = {drawing.path_in(Path("out"), Picture(source, None)) for source in sources}
    paths |= {drawing.path_in(Path("out"), Picture("a.png", None, frame)) for frame in (0, 1)}
    assert len(paths) == len(sources) + 2
    assert all(path.parts[0] == "out" and ".." not in path.parts for path in paths)
    outside = drawing.path_in(Path("out"), Picture("/photos/a.JPG", None))
    assert outside.parent == Path("out")
    assert outside.name.startswith("a.JPG.")
    assert outside.name.endswith(".faces.jpg")
    # The pictures' own folder as the target overwrites none of them.
    assert drawing.path_in(Path(), Picture("a.png", None)) == Path("a.png.faces.png")


def test_command_table_and_annotated_pictures(capsys, monkeypatch, astronaut, tmp_path):
    monkeypatch.chdir(astronaut.parent)
    assert main(["predict", "astronaut.png", "--save", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    header, row = out.splitlines()
    assert header.split() == ["expression", "prob.", "left", "top", "side", "picture"]
    assert row.split()[0] == "happy"
    assert row.split()[-1] == "astronaut.png"
    assert err == f"1 annotated picture: {tmp_path / 'out' / 'astronaut.png.faces.png'}\n"
    with Image.open(tmp_path / "out" / "astronaut.png.faces.png") as image:
        assert image.size[0] > 512


def test_command_json(capsys, astronaut):
    coffee = astronaut.with_name("coffee.png")
    Image.fromarray(skimage.data.coffee()).save(coffee)
    assert main(["predict", str(astronaut), str(coffee), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["picture"] == str(astronaut)
    (face,) = first["faces"]
    assert face["expression"] == max(face["probabilities"], key=face["probabilities"].get)
    assert set(face["box"]) == {"left", "top", "side"}
    assert np.shape(face["region"]) == (4, 2)
    assert (second["width"], second["height"], second["faces"]) == (600, 400, [])


def test_command_csv(capsys, tmp_path, golden):
    """The command's probabilities are the wide network's mean over face and mirror image."""
    images, _ = golden
    trained = load_pretrained("deep_emotion_wide.fer2013")
    sides = np.concatenate([images, images[:, :, ::-1]]) / np.float32(255)
    logits = nnx.jit(lambda net, x: net(x))(trained.model, sides)
    expected = np.asarray(jax.nn.softmax(logits / trained.about["temperature"]))
    expected = expected.reshape(2, len(images), -1).mean(axis=0)
    for name, image in zip(("a,b", 'c"d', "e\nf"), images, strict=False):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    assert main(["predict", str(tmp_path), "--csv", "--detector", "none"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [Path(row["picture"]).stem for row in rows] == ["a,b", 'c"d', "e\nf"]
    for row, want in zip(rows, expected, strict=False):
        classes = list(row)[7:-4]
        np.testing.assert_allclose([float(row[name]) for name in classes], want, atol=1e-4)
        assert row["expression"] == classes[want.argmax()]


def test_unreadable_files_are_counted_and_others_processed(capsys, tmp_path, golden):
    for name, image in zip("ac", golden[0], strict=False):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_text("no picture")
    code = main(["predict", str(tmp_path), str(tmp_path / "gone.png"), "--detector", "none"])
    out, err = capsys.readouterr()
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "b.png" in err
    assert "gone.png" in err
    assert "2 could not be read" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "PATH or --webcam"),
        (["a.png", "--webcam"], "PATH or --webcam"),
        (["a.png", "--model", "vgg"], "no pretrained network is called 'vgg'"),
        (["a.png", "--model", "vgg.safetensors"], "cannot read a network from vgg.safetensors"),
        (["a.png", "--detector", "yunet"], "--detector-model"),
        (["a.png", "--detector-model", "a.onnx"], "--detector yunet"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, message):
    assert main(["predict", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1


def test_save_to_a_folder_that_cannot_be_written(capsys, astronaut, tmp_path):
    (tmp_path / "file").touch()
    assert main(["predict", str(astronaut), "--save", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_command_in_a_process_of_its_own(astronaut):
    """Imports nothing of training, and a closed pipe is not an error."""
    code = (
        "import sys; from deep_emotion_jax.__main__ import main; "
        f"code = main(['predict', {str(astronaut)!r}]); "
        "heavy = {'tensorflow', 'tensorflow_datasets', 'grain', 'orbax.checkpoint', 'matplotlib'}; "
        "print(code, sorted(heavy & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0 []"
    command = f"{sys.executable} -m deep_emotion_jax predict '{astronaut}'"
    pipe = ["bash", "-c", command + " | true; echo ${PIPESTATUS[0]}"]
    run = subprocess.run(pipe, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("0\n", "")


def test_the_webcam_is_read_frame_by_frame(monkeypatch, capsys, tmp_path):
    film = tmp_path / "camera.mkv"
    films.write(film, [(0, skimage.data.astronaut()), (0.1, skimage.data.astronaut())])
    monkeypatch.setattr(video, "camera_input", lambda: (str(film), None, {}))
    cameras = []
    monkeypatch.setattr(av, "open", spy(cameras, av.open))
    assert main(["predict", "--webcam", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["picture"], row["frame"]) for row in rows] == [("webcam", 0), ("webcam", 1)]
    for row in rows:
        assert [face["expression"] for face in row["faces"]] == ["happy"]
    (camera,) = cameras
    with pytest.raises(AssertionError, match="not open"):
        next(camera.decode(video=0))  # It has been released.
    film.write_bytes(b"")  # It has been unplugged.
    assert main(["predict", "--webcam"]) == 2
    assert "webcam" in capsys.readouterr().err


def spy(results, function):
    def keep(*arguments, **options):
        results.append(function(*arguments, **options))
        return results[-1]

    return keep


def test_faces_have_notes_and_a_picture_without_faces_gets_a_hint(capsys, tmp_path):
    picture = Image.fromarray(skimage.data.astronaut())
    picture.resize((100, 100)).save(tmp_path / "small.png")
    Image.new("RGB", (90, 90)).save(tmp_path / "without.png")
    assert main(["predict", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    small, without = (json.loads(line)["faces"] for line in out.splitlines())
    assert "small" in small[0]["notes"]
    assert 0.6 < small[0]["score"] <= 1
    assert without == []
    assert "no face found in 1 picture;" in err
    assert "--detector none" in err


def test_a_list_of_pictures_gives_a_list(of_faces, golden):
    images, _ = golden
    one, two = of_faces.predict([images[0], images[1]])
    assert probabilities(one) == probabilities(of_faces.predict(images[0]))
    assert probabilities(two) == probabilities(of_faces.predict(images[1]))
    assert of_faces.predict([]) == []


def test_a_predictor_can_be_pickled(of_faces, golden):
    copy = pickle.loads(pickle.dumps(of_faces))
    assert probabilities(copy.predict(golden[0][0])) == probabilities(
        of_faces.predict(golden[0][0])
    )


def test_the_repr_of_a_prediction_is_short(of_faces, golden):
    text = repr(of_faces.predict(golden[0][0]))
    assert "expression" in text
    assert len(text) < 1000


def test_probabilities_are_the_calibrated_mean_over_face_and_mirror(golden):
    images, _ = golden
    trained = load_pretrained("deep_emotion.fer2013")
    logits = np.asarray(nnx.jit(lambda net, x: net(x))(trained.model, images / np.float32(255)))
    mirrored = images[:, :, ::-1] / np.float32(255)
    other = np.asarray(nnx.jit(lambda net, x: net(x))(trained.model, mirrored))
    expected = np.mean([jax.nn.softmax(part / 2.5) for part in (logits, other)], axis=0)
    hot = Trained(trained.model, trained.classes, {**trained.about, "temperature": 2.5})
    for image, row in zip(images, expected, strict=True):
        (face,) = Predictor(hot, whole_picture).predict(image).faces
        np.testing.assert_allclose(list(face.probabilities.values()), row, atol=1e-4)


def test_a_rolled_face_gets_the_prediction_of_the_upright_one(predictor, astronaut):
    """The picture is turned by 25 degrees; the crop is level and the region is turned with it."""
    upright = skimage.data.astronaut()
    leaning = np.asarray(Image.fromarray(upright).rotate(25, Image.Resampling.BICUBIC))
    (face,) = predictor.predict(leaning).faces
    assert face.roll == pytest.approx(-21, abs=5)
    assert face.probabilities["happy"] > 0.8
    edge = face.region[1] - face.region[0]
    straight = predictor.predict(upright).faces[0].region
    tilt = np.degrees(np.arctan2(*edge[::-1])) - np.degrees(
        np.arctan2(*(straight[1] - straight[0])[::-1])
    )
    assert tilt == pytest.approx(face.roll, abs=5)
