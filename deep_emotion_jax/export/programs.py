"""Export trained networks: ONNX, and StableHLO for JAX without this package.

    trained = load_pretrained("deep_emotion.fer2013")
    Path("fer.onnx").write_bytes(to_onnx(trained))
    Path("fer.stablehlo").write_bytes(to_stablehlo(trained))

Both take `images` float32 [N, 48, 48, 1] in [0, 1], for any N, and return logits [N, K] and, if the
network has a sampler, theta [N, 2, 3]. Both are run and compared with the network before they are
returned. `description` specifies how to prepare images and interpret logits. The ONNX file has it
in its metadata; a StableHLO file has no metadata, so the command writes it to a file beside it.

Needs the extra `export` (onnx, onnxruntime, flatbuffers).
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deep_emotion_jax.constants import IMAGE_SIZE
from deep_emotion_jax.data import detectors, yunet
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.inference import quality
from deep_emotion_jax.nn.weights import Trained, fold_batch_norm

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE, SMALL_TOLERANCE = 1e-4, 0.02
"""Largest accepted difference from the network's logits, for 32 and for fewer bits; relative to the
largest logit if that is above 1."""

PREPROCESSING = (
    "Grey: ITU-R 601 luma. Cut the square that frames the face, forehead to chin and ear to ear; "
    "resize it to 48 x 48 with a bilinear (triangle) filter that averages when it shrinks, as "
    "Pillow's Image.resize does; divide by 255."
)


def description(trained: Trained) -> dict[str, Any]:
    """Return the specification of an exported network, for use without this package, as JSON types.

    `region_span` is the side of the square that theta maps, as a share of the face's side: the
    attended region is theta's coordinates times this, in [-1, 1] over the face.
    """
    sampler = trained.model.attention
    return {
        "classes": list(trained.classes),
        "input": "images float32 [N, 48, 48, 1] in [0, 1]",
        "preprocessing": PREPROCESSING,
        "outputs": ["logits"] + (["theta"] if sampler != "none" else []),
        "postprocessing": (
            "softmax of logits / temperature gives the classes' probabilities; prediction takes "
            "their mean over a face and its mirror image"
        ),
        "temperature": trained.about.get("temperature", 1.0),
        "attention": sampler,
        "region_span": trained.model.span,
        "about": trained.about,
    }


def deployment(trained: Trained) -> dict[str, Any]:
    """Return `description` and the settings for detecting and cropping faces, as JSON types.

    `detector` holds the constants of `data/detectors.py`, `notes` the limits of
    `inference/quality.py`.
    """
    return {
        **description(trained),
        "detector": {
            "input": "picture uint8 [1, H, W, 3] RGB, H and W multiples of 32",
            "outputs": ["found"],
            "min_score": detectors.MIN_SCORE,
            "frame_side": detectors.FRAME_SIDE,
            "level_above": detectors.LEVEL_ABOVE,
            "same_face": detectors.SAME_FACE,
            "same_box": detectors.SAME_BOX,
            "side": detectors.SIDE,
            "canvases": detectors.CANVASES,
            "view": detectors.VIEW,
            "face_in_view": detectors.FACE_IN_VIEW,
            "small": detectors.SMALL,
        },
        "notes": {
            "small": quality.SMALL,
            "sharpness": quality.SHARPNESS,
            "contrast": quality.CONTRAST,
            "profile": quality.PROFILE,
        },
    }


def to_stablehlo(trained: Trained) -> bytes:
    """Export for `jax.export.deserialize`, for CPUs, NVIDIA GPUs and TPUs.

    JAX guarantees six months of forward and backward compatibility.

    Raises:
      UserError: without the extra, or if the program's logits differ from the network's.
    """
    model = fold_batch_norm(trained.model)

    def program(images: jax.Array) -> tuple[jax.Array, ...]:
        logits = model(images, plain=True)
        if model.localization is None:
            return (logits,)
        return logits, model.theta(images, plain=True)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, IMAGE_SIZE, IMAGE_SIZE, 1), jnp.float32)
    with _needs_extra():
        data = jax.export.export(jax.jit(program), platforms=PLATFORMS)(images).serialize()
        read = jax.export.deserialize(data)
    _check(trained, "StableHLO program", _quick_jit(read.call))
    return bytes(data)


def to_onnx(trained: Trained, *, bits: int = 32) -> bytes:
    """Export as an ONNX file, with the entries of `description` as its metadata.

    Args:
      trained: the network.
      bits: of a weight in the file, 12, 16 or 32; fewer than 32 change the logits slightly.

    Raises:
      UserError: without the extra, or if ONNX Runtime's logits differ from the network's.
    """
    with _needs_extra():
        from deep_emotion_jax.export.onnx_graph import onnx_graph
    data, session = _serialized(onnx_graph(trained.model, bits=bits), description(trained))
    tolerance = TOLERANCE if bits == 32 else SMALL_TOLERANCE
    _check(trained, "ONNX graph", lambda images: session.run(None, {"images": images}), tolerance)
    return data


def detector_to_onnx(*, bits: int = 32) -> bytes:
    """Export the packaged face detector as an ONNX file, see `onnx_detector`.

    Args:
      bits: of a weight in the file, see `to_onnx`.

    Raises:
      UserError: without the extra, or if ONNX Runtime's scores differ from the detector's.
    """
    with _needs_extra():
        from deep_emotion_jax.export.onnx_detector import detector_graph
    data, session = _serialized(detector_graph(yunet.weights(), bits=bits), {})
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    expected = np.asarray(_quick_jit(functools.partial(yunet.detect, yunet.weights()))(picture)[0])
    (found,) = session.run(None, {"picture": picture})
    difference = np.abs(found[:, 0] - expected[0]).max()
    if not difference <= 0.02:
        raise UserError(
            f"the detector's ONNX graph gives scores that differ by {difference:.3g}, so it is not "
            "written; install another release of onnxruntime"
        )
    return data


def _serialized(graph: Any, metadata: dict[str, Any]) -> tuple[bytes, Any]:
    """Check an ONNX graph; return the file's content and an ONNX Runtime session of it."""
    with _needs_extra():
        import onnx
        import onnxruntime
    graph.producer_name = "deep_emotion_jax"
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    onnx.helper.set_model_props(graph, text)
    onnx.checker.check_model(graph, full_check=True)
    data = graph.SerializeToString()
    return data, onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def _check(trained: Trained, what: str, program: Any, tolerance: float = TOLERANCE) -> None:
    """Compare an exported network with the original on 100 images of noise, coarse to fine."""
    random = np.random.default_rng(0)
    images = []
    for i in range(100):
        side = IMAGE_SIZE >> i % 4
        noise = random.random((side, side, 1), np.float32)
        images.append(noise.repeat(1 << i % 4, axis=0).repeat(1 << i % 4, axis=1))
    batch = np.stack(images)
    expected = np.asarray(_quick_jit(trained.model)(batch))
    difference = np.abs(np.asarray(program(batch)[0]) - expected).max()
    if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"the {what} gives logits that differ from the network's by {difference:.3g}, so it is "
            "not written; check the network's weights"
        )


def _quick_jit(function: Any) -> Any:
    # Called once: compiling with full optimization takes five times as long.
    on_cpu = jax.default_backend() == "cpu"
    options: Any = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(lambda images: function(images), compiler_options=options)


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f'export needs its extra ({error}): pip install ".[export]" in the project\'s folder'
        ) from error
