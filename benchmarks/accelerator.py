"""Absolute training speed of this project on the devices that JAX finds.

    python -m benchmarks.accelerator

Takes at most ten minutes and needs neither data nor PyTorch. Measures whole epochs of FER-2013's
size (28,709 images, augmentation as in configs/fer2013.py, shuffling, Adam, averaged weights) as in
`training.loop.fit`, for one model and for 8 at once, at the paper's batch size and larger ones.
Fractions refer to two limits measured on the same device: arithmetic, from a large float32 matmul
at JAX's default precision (TF32 on NVIDIA), and memory, from a large copy. The network needs 17.4
MFLOP per image and training step, and 1.2 MB if each layer's output and its gradient are written
and read once; fused layers move less.

Then it compares eight models with one at the paper's batch size, the shipped network's logits with
the CPU's, and, if PyTorch is installed for the same device, the sampler with `grid_sample`.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from deep_emotion_jax.nn.logits import make_logits, split_model
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.training.batching import steps_per_epoch
from deep_emotion_jax.training.config import Augmentation, Recipe
from deep_emotion_jax.training.epoch import (
    for_each_run,
    init_state,
    make_epoch,
)
from deep_emotion_jax.training.optimizer import make_optimizer

# (multiply-adds, size of the output) of each layer of the network.
LAYERS = (
    *((46**2 * 90, 46**2 * 10), (44**2 * 900, 44**2 * 10), (0, 22**2 * 10)),
    *((20**2 * 900, 20**2 * 10), (18**2 * 900, 18**2 * 10), (0, 9**2 * 10)),
    *((48**2 * 72, 48**2 * 8), (0, 12**2 * 8), (12**2 * 720, 12**2 * 10), (0, 90)),
    *((90 * 32, 32), (32 * 6, 6), (0, 810), (810 * 50, 50), (50 * 7, 7)),
)
# A multiply-add is two operations; the backward pass costs twice the forward pass.
FLOP = 6 * sum(multiply_adds for multiply_adds, _ in LAYERS)
BYTES = 4 * 4 * sum(numbers for _, numbers in LAYERS)


class Sizes(NamedTuple):
    """The sizes of the measurements.

    Attributes:
      images: images per epoch.
      batches: batch sizes, the paper's first.
      models: numbers of models trained at once, 1 first.
      matmul: side of the square matrices for the arithmetic limit.
      copy: number of float32 values copied for the memory limit.
      seconds: duration of each case after its compilation; at least one epoch.
      deadline: seconds after which no further case starts.
    """

    images: int
    batches: tuple[int, ...]
    models: tuple[int, int]
    matmul: int
    copy: int
    seconds: float
    deadline: float


def sizes_for(backend: str, *, quick: bool) -> Sizes:
    """Returns tiny sizes to test the script, small ones for a CPU, else those of the docstring."""
    if quick:
        return Sizes(16, (8,), (1, 2), 64, 1 << 10, 0.0, 120.0)
    if backend == "cpu":
        return Sizes(28_709, (128, 512), (1, 8), 2048, 1 << 26, 10.0, 300.0)
    return Sizes(28_709, (128, 512, 2048, 8192), (1, 8), 8192, 1 << 28, 5.0, 400.0)


def median_seconds(call: Callable[[], Any], seconds: float) -> float:
    """Returns the median duration of the calls that fit into a time, after one that compiles."""
    jax.block_until_ready(call())
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def device_limits(sizes: Sizes) -> dict[str, float]:
    """Measures the arithmetic and memory limits of all devices in FLOP/s and bytes/s."""
    matrix = jnp.ones((sizes.matmul, sizes.matmul))
    matmul = jax.jit(jnp.matmul)
    numbers = jnp.ones(sizes.copy)
    copy = jax.jit(lambda x: x + 1)
    matmul_seconds = median_seconds(lambda: matmul(matrix, matrix), min(1.0, sizes.seconds))
    copy_seconds = median_seconds(lambda: copy(numbers), min(1.0, sizes.seconds))
    # CPU devices share one thread pool and one memory.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    return {
        "flop_per_second": devices * 2 * sizes.matmul**3 / matmul_seconds,
        "bytes_per_second": devices * 8 * sizes.copy / copy_seconds,
    }


def make_epoch_call(models: int, batch: int, images: int) -> Callable[[], Any]:
    """Returns a function that trains the next epoch of a number of models at once."""
    mesh = common.make_mesh()
    model = common.make_model()
    recipe = Recipe(batch, learning_rate=1e-3)
    optimizer, _ = make_optimizer(recipe, 500, steps_per_epoch(images, batch))
    epoch = make_epoch(model, optimizer, recipe, Augmentation(shift=0.06), mesh)
    program = jax.jit(for_each_run(epoch))
    start = init_state(model, optimizer)
    rng = np.random.default_rng(0)
    state, keys, index, count, *data = jax.device_put(
        (
            jax.tree.map(lambda leaf: jnp.stack([leaf] * models), start),
            jax.random.split(jax.random.key(0), models),
            np.tile(np.arange(images, dtype=np.int32), (models, 1)),
            np.full(models, images, np.int32),
            rng.integers(0, 256, (images, 48, 48, 1), np.uint8),
            rng.integers(0, 7, images).astype(np.int32),
        ),
        jax.NamedSharding(mesh, jax.P()),
    )

    def call() -> Any:
        nonlocal state
        state, sums = program((state, keys, index, count), tuple(data))
        return sums

    return call


def measure_case(models: int, batch: int, sizes: Sizes, limits: dict[str, float]) -> dict[str, Any]:
    """Measures one row of the table."""
    began = time.perf_counter()
    seconds = median_seconds(make_epoch_call(models, batch, sizes.images), sizes.seconds)
    speed = models * sizes.images / seconds
    return {
        "models": models,
        "batch": batch,
        "images_per_second": speed,
        "milliseconds_per_step": 1e3 * seconds / steps_per_epoch(sizes.images, batch),
        "seconds_500_epochs": 500 * seconds,
        "of_arithmetic_limit": speed * FLOP / limits["flop_per_second"],
        "of_memory_limit": speed * BYTES / limits["bytes_per_second"],
        "seconds_with_compiling": time.perf_counter() - began,
    }


def measure(sizes: Sizes, limits: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Yields rows: both numbers of models at the paper's batch size and at the fastest one."""
    end = time.perf_counter() + sizes.deadline
    one, many = sizes.models
    paper, *larger = sizes.batches
    speed = {}

    def row(models: int, batch: int) -> dict[str, Any]:
        if time.perf_counter() > end:
            return {"models": models, "batch": batch, "not_measured": "no time left"}
        try:
            return measure_case(models, batch, sizes, limits)
        except jax.errors.JaxRuntimeError as error:  # out of memory
            reason = str(error).splitlines()[0]
            return {"models": models, "batch": batch, "not_measured": reason}

    yield row(one, paper)
    yield row(many, paper)
    for batch in larger:
        found = row(one, batch)
        speed[batch] = found.get("images_per_second", 0.0)
        yield found
    if speed:
        yield row(many, max(speed, key=lambda batch: speed[batch]))


def many_against_one(rows: list[dict[str, Any]], sizes: Sizes) -> float | None:
    """Returns the time of many models over that of one, at the paper's batch size."""
    seconds = {
        row["models"]: row.get("seconds_500_epochs")
        for row in rows
        if row["batch"] == sizes.batches[0]
    }
    one, many = (seconds.get(models) for models in sizes.models)
    return many / one if one and many else None


def agreement() -> dict[str, float]:
    """Returns the largest difference of the shipped network's logits to the CPU's, by precision."""
    model = load_pretrained("deep_emotion.fer2013").model
    program = jax.jit(make_logits(model))
    arrays = (*split_model(model), np.random.default_rng(0).random((64, 48, 48, 1), np.float32))
    on_cpu = np.asarray(program(*jax.device_put(arrays, jax.devices("cpu")[0])))
    found = {"largest_logit": float(np.abs(on_cpu).max())}
    for precision in ("default", "highest"):
        with jax.default_matmul_precision(precision):
            here = np.asarray(jax.jit(make_logits(model))(*arrays))
        found[f"difference_at_{precision}_precision"] = float(np.abs(here - on_cpu).max())
    return found


def sampler_against_torch(seconds: float, *, quick: bool) -> dict[str, Any]:
    """Returns milliseconds of both samplers, and their ratio; empty without PyTorch."""
    try:
        import torch

        from benchmarks import grid_sample
    except ImportError:
        return {}
    device = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend())
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return {}
    found = {}
    for size in grid_sample.SIZES:
        inputs = grid_sample.make_inputs(2 if quick else 128, size)
        ours, theirs = grid_sample.jax_sides(inputs), grid_sample.torch_sides(inputs, device)
        for work in ours:
            sides = {"jax": ours[work], "torch": theirs[work]}
            times = common.time_in_turn(sides, 1 if quick else 5, seconds)
            name = f"{'x'.join(map(str, size))} {work}"
            found[name] = {side: 1e3 * statistics.median(t) for side, t in times.items()}
            found[name]["times_as_fast"] = common.speed_ratios(times)["torch"]
    return found


def as_line(row: dict[str, Any]) -> str:
    """Formats a row of the printed table."""
    start = f"{row['models']:6d} {row['batch']:6d} "
    if "not_measured" in row:
        return start + f"not measured: {row['not_measured']}"
    return start + (
        f"{row['images_per_second']:12,.0f} {row['milliseconds_per_step']:9.3f} "
        f"{row['seconds_500_epochs']:13,.1f} {row['of_arithmetic_limit']:11.2%} "
        f"{row['of_memory_limit']:8.2%} {row['seconds_with_compiling']:10.0f} s"
    )


def main(argv: list[str] | None = None) -> None:
    """Measures all cases, prints the table and writes accelerator.json."""
    parser = common.parser(__doc__)
    parser.add_argument("--seconds", type=float, help="time after which no further case starts")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes, the paper's first")
    arguments = parser.parse_args(argv)
    sizes = sizes_for(jax.default_backend(), quick=arguments.quick)
    sizes = sizes._replace(
        deadline=arguments.seconds or sizes.deadline,
        batches=tuple(arguments.batches or sizes.batches),
    )
    limits = device_limits(sizes)
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind}: "
        f"{limits['flop_per_second'] / 1e12:,.2f} TFLOP/s, "
        f"{limits['bytes_per_second'] / 1e9:,.0f} GB/s"
    )
    print(
        "models  batch     images/s  ms/step  500 epochs, s  arithmetic   memory  compiled and run"
    )
    results: dict[str, Any] = {"limits": limits, "rows": []}

    def keep(**more: Any) -> None:
        # Written after every part, so that an interruption keeps the parts before it.
        results.update(more)
        common.write_json(arguments.results, "accelerator", sizes._asdict(), results)

    for row in measure(sizes, limits):
        print(as_line(row), flush=True)
        keep(rows=[*results["rows"], row])
    many = many_against_one(results["rows"], sizes)
    print(f"{sizes.models[1]} models take {many:.2f} times as long as one" if many else "")
    keep(many_against_one=many, agreement=agreement())
    print("logits against the CPU's:", results["agreement"], flush=True)
    keep(sampler=sampler_against_torch(0.0 if arguments.quick else 0.2, quick=arguments.quick))
    for name, figures in results["sampler"].items():
        print(
            f"{name:28s} jax {figures['jax']:8.3f} ms  torch {figures['torch']:8.3f} ms  "
            f"jax is {figures['times_as_fast']:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
