"""The scripts of examples/ run and give the documented output."""

import runpy

import numpy as np
import skimage.data
from commands import ROOT, run, train_arguments
from PIL import Image

from deep_emotion_jax import load_pretrained


def example(name):
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]


def test_explain_picture(capsys, tmp_path):
    picture = tmp_path / "astronaut.jpg"
    Image.fromarray(skimage.data.astronaut()).save(picture)
    out = tmp_path / "explained.png"
    example("explain_picture")([str(picture), f"--out={out}"])
    printed = capsys.readouterr().out
    assert printed.startswith("happy, box")
    assert "blurring row" in printed
    with Image.open(out) as image:
        assert np.asarray(image).std() > 10


def test_sampler_in_your_model(capsys):
    assert example("sampler_in_your_model")(["--steps=100"]) < 0.5
    assert "squared error" in capsys.readouterr().out


def test_train_and_read_report(prepared, tmp_path):
    settings = train_arguments(prepared, tmp_path, epochs=1)[2:]
    done = run("examples/train_and_read_report.py", f"--workdir={tmp_path}", *settings)
    assert done.returncode == 0, done.stderr
    assert "47,657 parameters, epoch" in done.stdout
    assert "recall of happy" in done.stdout
    trained = load_pretrained(str(tmp_path / "weights" / "official-seed-0.safetensors"))
    assert trained.about["run"] == "official-seed-0"
