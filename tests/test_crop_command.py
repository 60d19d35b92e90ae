"""deep-emotion crop writes the faces that predict classifies, under the paths of the pictures."""

import shutil

import numpy as np
import pytest
from commands import ROOT, fails_here
from PIL import Image

from deep_emotion_jax.__main__ import main
from deep_emotion_jax.inference.predictor import Predictor


def test_cropped_faces_are_those_of_prediction_in_the_same_folders(tmp_path, capsys):
    happy = tmp_path / "in" / "happy"
    happy.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "astronaut.jpg", happy / "a.jpg")
    Image.new("L", (90, 90), 128).save(happy / "nobody.png")
    out = tmp_path / "out"
    assert main(["crop", str(tmp_path / "in"), str(out)]) == 1
    printed = capsys.readouterr()
    assert f"1 face in {out}, 1 skipped" in printed.out
    assert "no face found in" in printed.err
    assert "nobody.png" in printed.err
    assert [path.relative_to(out).as_posix() for path in out.rglob("*.*")] == ["happy/a.jpg.png"]
    cut = Image.open(out / "happy" / "a.jpg.png")
    assert cut.mode == "L"
    (face, *_) = Predictor.from_pretrained("deep_emotion.fer2013").predict(happy / "a.jpg").faces
    np.testing.assert_array_equal(np.asarray(cut), face.pixels)


@pytest.mark.parametrize("target", ["in", "in/cuts"])
def test_out_must_not_be_inside_in(tmp_path, capsys, target):
    (tmp_path / "in").mkdir()
    fails_here(capsys, "crop", tmp_path / "in", tmp_path / target, words=("another OUT",))
