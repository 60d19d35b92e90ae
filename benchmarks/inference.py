"""Inference: this project against PyTorch, eager and compiled, and ONNX Runtime.

    python -m benchmarks.inference

The same network and weights, float32, all cores, from a NumPy array of faces in [0, 1] to a NumPy
array of logits, including each side's conversions. The ONNX files are PyTorch's exports of the same
network, one per batch size.
"""

import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks.needs import require

require("torch", "onnx", "onnxruntime", "onnxscript")

import onnxruntime
import torch

from benchmarks import common
from benchmarks.torch_model import TorchDeepEmotion, torch_copy
from deep_emotion_jax.nn.backend import micro_batch_size
from deep_emotion_jax.nn.logits import make_logits, split_model
from deep_emotion_jax.nn.model import DeepEmotion

Classify = Callable[[np.ndarray], np.ndarray]
BATCHES = (1, 32, 512)


def jax_classify(model: DeepEmotion, batch: int) -> Classify:
    """Returns this project's evaluation program; large batches are divided between devices.

    Small batches have the weights compiled in as constants, as exported programs have.
    """
    mesh = common.make_mesh()
    program = make_logits(model)
    if batch % (mesh.size * micro_batch_size(batch)):
        constants = split_model(model)
        alone = jax.jit(lambda images: program(*constants, images))
        return lambda images: np.asarray(alone(images))
    place = jax.NamedSharding(mesh, jax.P("data"))
    specs = (jax.P(), jax.P(), jax.P("data"))
    compiled = jax.jit(
        jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=jax.P("data"), check_vma=False)
    )
    weights = jax.device_put(split_model(model), jax.NamedSharding(mesh, jax.P()))
    return lambda images: np.asarray(compiled(*weights, jax.device_put(images, place)))


def torch_classify(model: TorchDeepEmotion, *, compiled: bool) -> Classify:
    """Returns PyTorch's program."""
    program = torch.compile(model, dynamic=False) if compiled else model

    def classify(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            # With one channel, NHWC and NCHW have the same bytes.
            return program(torch.from_numpy(images).view(-1, 1, 48, 48)).numpy()

    return classify


def onnx_classify(model: TorchDeepEmotion, batch: int, folder: Path) -> Classify:
    """Returns ONNX Runtime's program on the CPU."""
    path = folder / f"batch-{batch}.onnx"
    example = torch.zeros(batch, 1, 48, 48)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            path,
            input_names=["images"],
            opset_version=20,
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.reshape(-1, 1, 48, 48)})[0]


def main() -> None:
    """Measures all batch sizes and writes inference.json."""
    arguments = common.parser(__doc__).parse_args()
    batches, rounds, seconds = ((2,), 1, 0.0) if arguments.quick else (BATCHES, 9, 0.5)
    model = common.make_model()
    copy = torch_copy(model)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            images = np.random.default_rng(batch).random((batch, 48, 48, 1), np.float32)
            sides = {
                "jax": jax_classify(model, batch),
                "torch_eager": torch_classify(copy, compiled=False),
                "torch_compile": torch_classify(copy, compiled=True),
                "onnxruntime": onnx_classify(copy, batch, Path(folder)),
            }
            expected = sides["torch_eager"](images)
            for classify in sides.values():
                np.testing.assert_allclose(classify(images), expected, atol=1e-3)
            calls = {name: partial(classify, images) for name, classify in sides.items()}
            times = common.time_in_turn(calls, rounds, seconds)
            medians = {name: statistics.median(t) for name, t in times.items()}
            ratios = common.speed_ratios(times)
            results[str(batch)] = {
                "milliseconds": {name: 1e3 * t for name, t in medians.items()},
                "images_per_second": {name: batch / t for name, t in medians.items()},
                "jax_times_faster": ratios,
                "rounds_seconds": times,
            }
            for name, t in medians.items():
                ratio = f"  jax is {ratios[name]:.2f} times as fast" if name in ratios else ""
                print(
                    f"batch {batch:3d}  {name:14s} {1e3 * t:8.3f} ms {batch / t:10,.0f} images/s"
                    + ratio,
                    flush=True,
                )
    settings = {"batches": batches, "rounds": rounds, "seconds_a_turn": seconds}
    common.write_json(arguments.results, "inference", settings, results)


if __name__ == "__main__":
    main()
