"""Fine-tuning on a folder of pictures, from the command to predictions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import fails, run
from flax import nnx
from PIL import Image, ImageDraw

from datasets import common
from deep_emotion_jax import Predictor, load_pretrained
from deep_emotion_jax.data.detectors import whole_picture
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import start_from


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of drawings of several sizes: mouths up, down and straight."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for name, arc in {"happy": (20, 160), "sad": (200, 340), "asleep": (0, 1)}.items():
        (root / name).mkdir()
        for i in range(12):
            side = int(random.integers(40, 200))
            image = Image.fromarray(random.integers(150, 200, (side, side + 9), np.uint8))
            box = (0.3 * side, 0.5 * side, 0.7 * side, 0.8 * side)
            ImageDraw.Draw(image).arc(box, *arc, fill=0, width=1 + side // 20)
            image.save(root / name / f"{i}.png")
    return root


def arguments(folder, tmp_path):
    return [
        *("main.py", "--config=configs/folder.py", f"--workdir={tmp_path / 'run'}"),
        *(f"--config.manual_dir={folder}", f"--config.data_dir={tmp_path / 'data'}"),
        "--config.num_steps=2",
    ]


def test_a_folder_trains_and_its_network_predicts(folder, tmp_path):
    done = run(*arguments(folder, tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["runs"][0]["examples"] == {"train": 24, "validation": 6, "test": 6}
    weights = str(tmp_path / "run" / "weights" / "official-seed-0.safetensors")
    predictor = Predictor.from_pretrained(weights, whole_picture)
    assert predictor.classes == ("asleep", "happy", "sad")
    (face,) = predictor.predict(folder / "happy" / "0.png").faces
    trained = load_pretrained(weights)
    pixels = common.face_image(np.asarray(Image.open(folder / "happy" / "0.png")))
    both = jnp.stack([pixels, pixels[:, ::-1]])[..., None] / 255
    shares = jax.nn.softmax(trained.model(both) / trained.about["temperature"]).mean(0)
    np.testing.assert_allclose(list(face.probabilities.values()), shares, atol=1e-4)
    assert face.expression == predictor.classes[int(shares.argmax())]
    # Two small steps leave the convolutions close to the initial ones.
    mine, start = (
        np.asarray(load_pretrained(name).model.stages[0].convs[0].kernel)
        for name in (weights, "deep_emotion.fer2013")
    )
    assert 0 < np.abs(mine - start).max() < 0.05


def test_user_errors_are_one_message(folder, tmp_path):
    words = ("config.init_from", "fc1.bias", "config.model")
    fails(*arguments(folder, tmp_path), "--config.model.width=2", words=words)
    (tmp_path / "empty").mkdir()
    words = ("fewer than two class folders", tmp_path / "empty")
    fails(*arguments(tmp_path / "empty", tmp_path), words=words)


def test_classes_of_the_same_name_keep_their_weights():
    trained = load_pretrained("deep_emotion.fer2013")
    model = nnx.jit(lambda: DeepEmotion(3, rngs=nnx.Rngs(1)))()
    own = np.asarray(model.fc2.kernel)
    start_from(model, ("sad", "asleep", "happy"), trained)
    faces = jnp.zeros((1, 48, 48, 1)).at[:, 20:30, 10:40].set(1)
    np.testing.assert_array_equal(model.features(faces), trained.model.features(faces))
    logits, full = model(faces)[0], trained.model(faces)[0]
    sad, happy = trained.classes.index("sad"), trained.classes.index("happy")
    np.testing.assert_allclose(logits[jnp.array([0, 2])], full[jnp.array([sad, happy])], atol=1e-5)
    np.testing.assert_array_equal(model.fc2.kernel[:, 1], own[:, 1])


def test_init_from_refuses_another_network():
    trained = load_pretrained("deep_emotion.fer2013")
    for settings in ({"attention": "none"}, {"batch_norm": True}, {"width": 0.5}):
        model = nnx.eval_shape(lambda given=settings: DeepEmotion(7, **given, rngs=nnx.Rngs(0)))
        with pytest.raises(UserError, match=r"network of config\.init_from differs"):
            start_from(model, trained.classes, trained)


def test_init_from_names_the_settings_to_use():
    trained = load_pretrained("deep_emotion_wide.fer2013")
    model = nnx.eval_shape(lambda: DeepEmotion(7, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError) as caught:
        start_from(model, trained.classes, trained)
    assert trained.settings["trunk"] != "figure"
    for name in ("attention", "localization", "trunk"):
        assert f"--config.model.{name}={trained.settings[name]}" in str(caught.value)
