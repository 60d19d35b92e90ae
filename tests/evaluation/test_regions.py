"""Region figures and their scores, on a network with a known region."""

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import regions
from deep_emotion_jax.evaluation.regions import (
    METHODS,
    importance,
    shuffled,
    truth_scores,
    write_regions,
    write_telling_faces,
)
from deep_emotion_jax.nn.model import DeepEmotion


class Watcher(nnx.Module):
    """Predicts class 1 if the square of rows 8-15, columns 8-15 is very bright, else class 0."""

    def __init__(self):
        self.scale = nnx.Param(np.float32(20.0))

    def __call__(self, images, *, train=False, dropout_key=None):
        brightness = images[:, 8:16, 8:16, 0].mean((1, 2))
        logits = self.scale[...] * (brightness - 0.85)
        return np.float32(1) * nnx.relu(
            (logits[:, None] * np.array([-1.0, 1.0], np.float32)) + 10.0
        )


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    images = rng.integers(90, 110, (6, 48, 48, 1)).astype(np.uint8)
    labels = np.array([1, 1, 1, 0, 0, 0], np.int32)
    images[:3, 8:16, 8:16] = 250
    evidence = np.zeros((6, 48, 48), bool)
    evidence[:3, 8:16, 8:16] = True
    return Split(images, labels, [f"k{i}" for i in range(6)], [""] * 6, evidence)


def test_maps_of_the_network_find_the_known_region_and_baselines_do_not(faces):
    scores = truth_scores(Watcher(), faces, 2)
    assert scores["chance"] == {"faces": 3, "mask": pytest.approx(64 / 48**2)}
    for method in METHODS[:4]:
        assert scores[method]["pointing_hit"] > 0.9
        assert scores[method]["mapped"] == 1
    assert scores["gradient"]["mass_inside"] > 0.99
    assert scores["probability drop"]["mass_inside"] > 0.3
    for method in METHODS[4:]:
        assert scores[method]["mass_inside"] < 0.25
        assert scores[method]["after_shuffling"] == pytest.approx(1)


def test_a_face_without_a_map_counts_as_a_miss(faces, monkeypatch):
    monkeypatch.setattr(regions, "METHODS", ("label flips",))
    full = truth_scores(Watcher(), faces, 2)["label flips"]
    images = faces.images.copy()
    images[1] = 250  # uniformly bright, so blurring has no effect
    scores = truth_scores(Watcher(), faces._replace(images=images), 2)["label flips"]
    assert scores == {
        "mapped": pytest.approx(2 / 3),
        "mass_inside": pytest.approx(full["mass_inside"] * 2 / 3, rel=0.05),
        "pointing_hit": pytest.approx(full["pointing_hit"] * 2 / 3, rel=0.05),
        "after_shuffling": None,
    }


def test_networks_of_one_structure_share_a_compiled_program():
    model = DeepEmotion(rngs=nnx.Rngs(0))
    functions = {regions._logits_fn(nnx.graphdef(m)) for m in (model, shuffled(model, seed=0))}
    assert len(functions) == 1


def test_maps_change_when_weights_are_shuffled(faces):
    model = DeepEmotion(rngs=nnx.Rngs(0))
    other = shuffled(model, seed=0)
    for method in METHODS[2:4]:
        a, b = importance(model, faces, method), importance(other, faces, method)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.9
    kernel, mixed = (np.asarray(m.fc1.kernel[...]).ravel() for m in (model, other))
    np.testing.assert_array_equal(np.sort(kernel), np.sort(mixed))


def test_figures_show_the_faces_and_where_the_network_looks(faces, tmp_path, monkeypatch):
    drawn, draw_png = [], regions.figures.regions_png

    def keep(maps, shown, *rest):
        drawn.append((maps, shown))
        draw_png(maps, shown, *rest)

    monkeypatch.setattr(regions.figures, "regions_png", keep)
    for draw in (write_regions, write_telling_faces):
        path = tmp_path / f"{draw.__name__}.png"
        draw(Watcher(), faces, ["dark", "bright"], "test", path)
        with Image.open(path) as image:
            image.load()
    (maps, shown), (best_maps, best_faces) = drawn
    average = faces.images[..., 0].reshape(2, 3, 48, 48).mean(1)[::-1] / 255
    np.testing.assert_allclose(shown, average, rtol=1e-5)
    inside = maps[1, 8:16, 8:16].mean()
    assert inside > 20 * maps[1, 24:].mean()  # nothing far from the square changes the answer
    assert not maps[0].any()  # no square that is blurred makes a dark face bright
    assert np.unravel_index(best_maps[1].argmax(), (48, 48)) < (16, 16)
    assert any(np.allclose(best_faces[1], image[..., 0] / 255) for image in faces.images[:3])
    wrong = faces._replace(labels=1 - faces.labels)
    write_regions(Watcher(), wrong, ["dark", "bright"], "test", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
