"""Exported networks give the network's logits in programs without this package."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from commands import fails_here
from flax import nnx

from datasets.synthetic_faces.synthetic_faces_dataset_builder import Builder
from deep_emotion_jax import load_pretrained
from deep_emotion_jax.__main__ import main
from deep_emotion_jax.data.split import load_split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import Trained

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
pytest.importorskip("flatbuffers", reason="the export extra is not installed")

from deep_emotion_jax.export import programs  # noqa: E402 (after what it needs)

READ_STABLEHLO = """
import sys
import jax, jax.export
import numpy as np
program = jax.export.deserialize(open("fer.stablehlo", "rb").read())
assert program.platforms == ("cpu", "cuda", "tpu")
images = np.load("faces.npy")
logits, theta = program.call(images)
one, _ = program.call(images[:1])
np.savez("out.npz", logits=logits, theta=theta, one=one)
assert not any("deep_emotion" in name for name in sys.modules)
"""


@pytest.fixture(scope="module")
def faces(prepared):
    """100 faces, float32 in [0, 1]."""
    split = load_split(Builder(data_dir=prepared).as_data_source(split="train"))
    return split.images[:100].astype(np.float32) / 255


@pytest.fixture(scope="module")
def trained():
    return load_pretrained("deep_emotion.fer2013")


@pytest.fixture(scope="module")
def expected(trained, faces):
    return trained.model(jnp.asarray(faces)), trained.model.theta(jnp.asarray(faces))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder that the command wrote to."""
    folder = tmp_path_factory.mktemp("exported")
    onnx_file, stablehlo_file = str(folder / "fer.onnx"), str(folder / "fer.stablehlo")
    small = "--model=deep_emotion.fer2013"
    assert main(["export", small, "--onnx", onnx_file, "--stablehlo", stablehlo_file]) == 0
    return folder


def close(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-4)


def test_onnx_runtime_gives_the_same_outputs(written, faces, expected):
    session = onnxruntime.InferenceSession(written / "fer.onnx")
    for count in (100, 1):
        logits, theta = session.run(["logits", "theta"], {"images": faces[:count]})
        close(logits, expected[0][:count])
        close(theta, expected[1][:count])
    assert (written / "fer.onnx").stat().st_size < 250_000


def test_the_onnx_file_has_the_description(written, trained):
    session = onnxruntime.InferenceSession(written / "fer.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["classes"])) == trained.classes
    assert "601" in metadata["preprocessing"]
    assert json.loads(metadata["about"]) == trained.about
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", 48, 48, 1]


def test_the_graph_uses_the_sampler_operators(written):
    kinds = [node.op_type for node in onnx.load(written / "fer.onnx").graph.node]
    assert kinds.count("GridSample") == kinds.count("AffineGrid") == 1
    assert len(kinds) < 50


def test_a_process_without_this_package_runs_the_stablehlo(written, faces, expected):
    np.save(written / "faces.npy", faces)
    # Outside the repository and isolated, so that only installed packages are found.
    subprocess.run([sys.executable, "-I", "-c", READ_STABLEHLO], cwd=written, check=True)
    with np.load(written / "out.npz") as out:
        close(out["logits"], expected[0])
        close(out["theta"], expected[1])
        close(out["one"], expected[0][:1])
    told = json.loads((written / "fer.stablehlo.json").read_text())
    assert told == json.loads(
        json.dumps(programs.description(load_pretrained("deep_emotion.fer2013")))
    )
    assert told["outputs"] == ["logits", "theta"]


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "image", "localization": "port", "width": 0.5},
        {"attention": "none", "trunk": "wide", "width": 0.2, "batch_norm": True},
        {
            "attention": "middle",
            "localization": "leaky",
            "trunk": "residual",
            "width": 0.25,
            "batch_norm": True,
        },
    ],
    ids=str,
)
def test_every_kind_of_network_is_exported(settings):
    model = nnx.jit(lambda: DeepEmotion(3, **settings, rngs=nnx.Rngs(0)))()
    if model.localization is not None:  # away from the identity
        model.localization.theta.bias[...] += np.linspace(-0.3, 0.3, 6)
    for _, norm in nnx.iter_modules(model):
        if isinstance(norm, nnx.BatchNorm):
            norm.mean[...] += 0.2
            norm.var[...] *= 1.5
    # `to_onnx` compares the logits; see the next test.
    session = onnxruntime.InferenceSession(programs.to_onnx(Trained(model, ("a", "b", "c"), {})))
    assert len(session.get_outputs()) == (1 if model.localization is None else 2)


def test_a_graph_with_other_logits_is_not_exported(monkeypatch, trained):
    from deep_emotion_jax.export import onnx_graph

    monkeypatch.setattr(onnx_graph._Graph, "_sample", lambda self, x, theta: x)
    with pytest.raises(UserError, match="ONNX graph gives logits that differ"):
        programs.to_onnx(trained)


def test_a_missing_extra_is_one_message(monkeypatch, trained):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'pip install "\.\[export\]"'):
        programs.to_onnx(trained)


def test_user_errors_are_one_message(tmp_path, capsys):
    fails_here(capsys, "export", words=("--onnx FILE",))
    nowhere = tmp_path / "nowhere" / "fer.onnx"
    fails_here(capsys, "export", "--onnx", nowhere, words=("cannot write", nowhere))
    fails_here(capsys, "export", "--onnx=a", "--model=fer", words=("'fer'", "deep_emotion.fer2013"))


def test_the_description_has_the_temperature_of_the_weights():
    wide = load_pretrained("deep_emotion_wide.fer2013")
    assert programs.description(wide)["temperature"] == wide.about["temperature"] != 1
    without = dataclasses.replace(wide, about={})
    assert programs.description(without)["temperature"] == 1
