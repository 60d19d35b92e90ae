"""The exported face detector gives the numbers of the published file; weights of fewer bits."""

import json

import jax
import numpy as np
import pytest
import skimage.data
from commands import GOLDEN_FILES

from deep_emotion_jax.__main__ import main
from deep_emotion_jax.data import detectors, yunet

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")

from deep_emotion_jax.export import programs  # noqa: E402 (after what it needs)
from deep_emotion_jax.export.onnx_builder import GraphBuilder, float_info  # noqa: E402


def found(data):
    """The output of an exported detector for the astronaut in the corner of 640 x 640."""
    picture = np.zeros((1, 640, 640, 3), np.uint8)
    picture[0, :512, :512] = skimage.data.astronaut()
    return onnxruntime.InferenceSession(data).run(None, {"picture": picture})[0]


@pytest.mark.parametrize("bits", [32, 16])
def test_detections_match_the_published_file(bits):
    rows = found(programs.detector_to_onnx(bits=bits))
    first, tolerance = 0, 1e-4 if bits == 32 else 5e-3
    with np.load(GOLDEN_FILES / "yunet.npz") as golden:
        for stride in yunet.STRIDES:
            at = rows[first + golden[f"places_{stride}"]]
            y, x = np.divmod(golden[f"places_{stride}"], 640 // stride)
            offset, size = np.split(golden[f"boxes_{stride}"], 2, axis=1)
            centre = stride * (np.stack([x, y], axis=1) + offset)
            half = stride * np.exp(size) / 2
            points = stride * (
                np.tile(np.stack([x, y], axis=1), 5) + golden[f"landmarks_{stride}"].reshape(-1, 10)
            )
            np.testing.assert_allclose(at[:, 0], golden[f"scores_{stride}"], atol=tolerance)
            want = np.concatenate([centre - half, centre + half, points], axis=1)
            np.testing.assert_allclose(at[:, 1:], want, rtol=tolerance, atol=200 * tolerance)
            first += (640 // stride) ** 2
    assert len(rows) == first


def test_any_size_of_picture():
    session = onnxruntime.InferenceSession(programs.detector_to_onnx())
    picture = skimage.data.astronaut()[None, 60:156, 140:300]
    (rows,) = session.run(None, {"picture": picture})
    assert len(rows) == 12 * 20 + 6 * 10 + 3 * 5
    scores, boxes, landmarks = (part[0] for part in jax.jit(yunet.detect)(yunet.weights(), picture))
    np.testing.assert_allclose(rows[:, 0] ** 2, scores**2, atol=1e-5)  # near 0 the root is steep
    np.testing.assert_allclose(rows[:, 1:5], boxes, atol=0.05)
    np.testing.assert_allclose(rows[:, 5:].reshape(-1, 5, 2), landmarks, atol=0.05)


@pytest.mark.parametrize(("bits", "share"), [(12, 1 / 2047), (16, 1 / 32767), (32, 0)])
def test_kernels_of_fewer_bits(bits, share):
    """The error of every weight is at most half a step of its channel's scale."""
    kernel = np.random.default_rng(0).normal(size=(8, 10, 5, 5)).astype(np.float32)
    kernel *= 10.0 ** np.arange(-4, 4)[:, None, None, None]
    kernel[3] = 0
    builder = GraphBuilder(bits=bits)
    builder.add("Identity", [builder.kernel(kernel, axis=0)], "out")
    data = builder.build("kernel", [], [float_info("out", kernel.shape)]).SerializeToString()
    (out,) = onnxruntime.InferenceSession(data).run(None, {})
    step = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) * share
    assert (np.abs(out - kernel) <= 0.5001 * step).all()
    assert len(data) < kernel.nbytes * bits / 32 + 1500


def test_the_command_writes_the_detector_and_its_settings(tmp_path):
    model = "--model=deep_emotion.fer2013"
    assert main(["export", model, "--onnx", str(tmp_path / "fer.onnx")]) == 0
    told = json.loads((tmp_path / "fer.onnx.json").read_text())
    assert told["files"] == {"network": "fer.onnx", "detector": "fer.detector.onnx"}
    assert told["detector"]["frame_side"] == detectors.FRAME_SIDE
    assert told["detector"]["min_score"] == detectors.MIN_SCORE
    assert told["temperature"] == pytest.approx(0.8450, abs=1e-4)
    score = found((tmp_path / "fer.detector.onnx").read_bytes())[:, 0]
    assert (score > 0.6).any()
