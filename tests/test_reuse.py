"""The Python blocks of README.md and docs/reuse.md run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from commands import ROOT, run_examples
from PIL import Image

from deep_emotion_jax import load_pretrained


def test_readme_prints_what_it_says(capsys, monkeypatch, tmp_path):
    Image.fromarray(skimage.data.astronaut()).save(tmp_path / "photo.jpg", "PNG")
    monkeypatch.chdir(tmp_path)
    run_examples("README.md", 1)
    assert f"\n```\n{capsys.readouterr().out}```\n" in (ROOT / "README.md").read_text()


def test_the_examples_run():
    run_examples("docs/reuse.md", 5)


def test_features_are_the_input_of_the_classifier():
    model = load_pretrained("deep_emotion.fer2013").model
    faces = jax.random.uniform(jax.random.key(0), (3, 48, 48, 1))
    features, logits = jax.jit(lambda m, x: (m.features(x), m(x)))(model, faces)
    assert features.shape == (3, 810)
    assert float(features.min()) >= 0
    hidden = np.maximum(features @ np.asarray(model.fc1.kernel) + np.asarray(model.fc1.bias), 0)
    expected = hidden @ np.asarray(model.fc2.kernel) + np.asarray(model.fc2.bias)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    with pytest.raises(ValueError, match="64"):
        model.features(jnp.zeros((1, 64, 64, 1)))
