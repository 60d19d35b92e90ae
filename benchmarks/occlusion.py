"""The paper's occlusion map of one face, with about 2,000 positions of the window.

    python -m benchmarks.occlusion

"map" is `attribution.occlusion_maps` with label flips, a window of 4 x 4 pixels and a stride of 1,
so 2,025 positions and the face itself, from a NumPy array to a NumPy array. "network" is the
evaluation program on as many faces, a lower bound for the map. The target is 100 milliseconds on
two cores.
"""

import statistics

import jax
import numpy as np
from flax import nnx

from benchmarks import common
from deep_emotion_jax.attribution import blurred, occlusion_maps
from deep_emotion_jax.nn.logits import make_logits, split_model

WINDOW, STRIDE = 4, 1


def main() -> None:
    """Measures both and writes occlusion.json."""
    arguments = common.parser(__doc__).parse_args()
    stride, rounds, seconds = (WINDOW, 1, 0.0) if arguments.quick else (STRIDE, 9, 0.5)
    places = ((48 - WINDOW) // stride + 1) ** 2
    model = common.make_model()
    graph, weights = nnx.split(model)
    face = np.random.default_rng(0).random((1, 48, 48, 1), np.float32)
    fill = blurred(face)
    label = np.asarray(model(face)).argmax(-1)

    def logits_fn(weights: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights)(images)

    evaluate = jax.jit(make_logits(model))
    faces = jax.device_put(np.repeat(face, places + 1, axis=0))
    sides = {
        "map": lambda: occlusion_maps(logits_fn, weights, face, label, WINDOW, stride, fill),
        "network": lambda: jax.block_until_ready(evaluate(*split_model(model), faces)),
    }
    times = common.time_in_turn(sides, rounds, seconds)
    results = {}
    for name, t in times.items():
        median = statistics.median(t)
        results[name] = {
            "milliseconds": 1e3 * median,
            "faces_per_second": (places + 1) / median,
            "rounds_seconds": t,
        }
        print(f"{name:8s} {1e3 * median:8.1f} ms {(places + 1) / median:9,.0f} faces/s", flush=True)
    settings = {
        "places": places,
        "window": WINDOW,
        "stride": stride,
        "rounds": rounds,
        "seconds_a_turn": seconds,
    }
    common.write_json(arguments.results, "occlusion", settings, results)


if __name__ == "__main__":
    main()
