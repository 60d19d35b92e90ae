"""Time from start to first prediction, in fresh processes.

    python -m benchmarks.cold_start

This project imports `Predictor`, loads a shipped network and predicts the expression in a photo,
including face detection, without JAX's persistent compilation cache and with a filled one. For
comparison, eager PyTorch imports, builds the network and computes the logits of one face, without
weights file and face detection. One untimed process of each kind runs first, so that files are in
the page cache and JAX's cache is filled.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common

ROOT = Path(__file__).parent.parent

OURS = """
import json, time
began = time.perf_counter()
from deep_emotion_jax.inference.predictor import Predictor
imported = time.perf_counter()
from skimage.data import astronaut
photo = astronaut()
start = time.perf_counter()
predictor = Predictor.from_pretrained("deep_emotion.fer2013")
loaded = time.perf_counter()
assert predictor.predict(photo).faces
first = time.perf_counter()
assert predictor.predict(photo).faces
print(json.dumps({
    "import": imported - began, "load": loaded - start, "first prediction": first - loaded,
    "second prediction": time.perf_counter() - first,
}))
"""
TORCH = """
import json, time
began = time.perf_counter()
import torch
imported = time.perf_counter()
from benchmarks.torch_model import TorchDeepEmotion
start = time.perf_counter()
model = TorchDeepEmotion().eval()
face = torch.rand(1, 1, 48, 48)
loaded = time.perf_counter()
with torch.inference_mode():
    model(face).numpy()
    first = time.perf_counter()
    model(face).numpy()
print(json.dumps({
    "import": imported - began, "load": loaded - start, "first prediction": first - loaded,
    "second prediction": time.perf_counter() - first,
}))
"""


def run(program: str, cache: str | None) -> dict[str, float]:
    """Runs a program in a fresh process, and returns seconds of each part and of the process."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if cache is not None:
        environment |= {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    process = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "whole process": process}


def main() -> None:
    """Measures and writes cold_start.json."""
    arguments = common.parser(__doc__).parse_args()
    rounds = 1 if arguments.quick else 7
    with tempfile.TemporaryDirectory() as cache:
        sides = {
            "jax, no cache": (OURS, None),
            "jax, filled cache": (OURS, cache),
            "torch eager, network only": (TORCH, None),
        }
        for side in sides.values():
            run(*side)
        seconds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                seconds[name].append(run(*side))
    medians = {
        name: {part: statistics.median(run[part] for run in runs) for part in runs[0]}
        for name, runs in seconds.items()
    }
    for name, parts in medians.items():
        print(f"{name:26s}", "  ".join(f"{part} {t:.2f} s" for part, t in parts.items()))
    results = {"median_seconds": medians, "rounds": seconds}
    common.write_json(arguments.results, "cold_start", {"rounds": rounds}, results)


if __name__ == "__main__":
    main()
