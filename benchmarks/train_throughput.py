"""Training speed: this project against PyTorch, eager and compiled, on the same work.

    python -m benchmarks.train_throughput

Every side trains the same network from the same weights in float32 on all cores, in a shuffled pass
over uint8 images in memory. A step scales and standardises a batch, runs the forward pass with
dropout 0.2, cross-entropy, the backward pass and an Adam step, and sums loss and correct
predictions. There is no augmentation. PyTorch uses its fused Adam, and `torch.compile` for
everything from the bytes to the loss.

The second part does the same steps with the wide network, which has no copy in PyTorch, in turn
with a large matrix product. The third part compares an epoch of `training.loop.fit` at FER-2013's
size, with flips and shifts, validation on 3,589 images, metrics, TensorBoard and a checkpoint, with
the same number of bare steps.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.nnx import Rngs

from benchmarks.needs import require

require("torch")

import torch
from torch.nn import functional

from benchmarks import common
from benchmarks.torch_model import torch_copy
from configs import fer2013_wide
from deep_emotion_jax.data.folds import Fold, Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.batching import steps_per_epoch
from deep_emotion_jax.training.config import Augmentation, Experiment, Recipe
from deep_emotion_jax.training.epoch import init_state, make_epoch
from deep_emotion_jax.training.loop import fit
from deep_emotion_jax.training.optimizer import make_optimizer

LEARNING_RATE = 1e-3


def make_data(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes noise images with random labels; the amount of work does not depend on them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 48, 48, 1), np.uint8)
    return images, rng.integers(0, 7, count).astype(np.int32)


def jax_pass(
    images: np.ndarray, labels: np.ndarray, batch: int, model: DeepEmotion
) -> Callable[[], None]:
    """Returns one pass of bare steps of this project."""
    mesh = common.make_mesh()
    recipe = Recipe(batch, LEARNING_RATE, schedule="constant", ema_decay=0)
    optimizer, _ = make_optimizer(recipe, 1, steps_per_epoch(len(labels), batch))
    program = jax.jit(make_epoch(model, optimizer, recipe, Augmentation(flip=False), mesh))
    state, index, *data = jax.device_put(
        (init_state(model, optimizer), np.arange(len(labels)), images, labels),
        jax.NamedSharding(mesh, jax.P()),
    )
    key = jax.random.key(0)

    def run() -> None:
        nonlocal state, key
        key, now = jax.random.split(key)
        state, sums = program(state, now, index, len(labels), *data)
        assert np.isfinite(sums["loss"]).all()

    return run


def torch_pass(
    images: np.ndarray, labels: np.ndarray, batch: int, *, compiled: bool
) -> Callable[[], None]:
    """Returns one pass of bare steps of PyTorch."""
    model = torch_copy(common.make_model()).train()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    all_images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    all_labels = torch.from_numpy(labels).long()

    def loss_and_correct(pixels: torch.Tensor, truth: torch.Tensor) -> tuple:
        logits = model(pixels.float() / 255)
        return functional.cross_entropy(logits, truth), (logits.argmax(1) == truth).sum()

    objective = torch.compile(loss_and_correct) if compiled else loss_and_correct

    def run() -> None:
        total, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
        for chosen in torch.randperm(len(labels)).split(batch):
            loss, correct = objective(all_images[chosen], all_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            hits += correct
        assert total.isfinite()

    return run


def loop_seconds(images: np.ndarray, labels: np.ndarray, train: int, batch: int) -> float:
    """Measures the whole second epoch of `loop.fit`; the first one compiles."""
    index = np.arange(len(labels))
    fold = Fold("benchmark", index[:train], index[train:], index[:0])
    names = [str(i) for i in index]
    experiment = Experiment(
        num_epochs=2,
        seconds_between_checkpoints=0,  # one per epoch
        recipe=Recipe(batch, LEARNING_RATE, schedule="constant"),
        augmentation=Augmentation(shift=0.06),
    )
    stamps = common.EpochTimes(time.perf_counter)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(stamps):
        fit(
            [common.make_model()],
            experiment,
            Split(images, labels, names, [""] * len(names)),
            [Run(fold, 0)],
            workdir=Path(folder),
            about={},
        )
    first, second = stamps.times
    return second - first


def compare_steps(batch: int, steps: int, rounds: int) -> dict[str, Any]:
    """Measures images per second of each side, and the ratio of this project to the others."""
    images, labels = make_data(batch * steps)
    sides = {
        "jax": jax_pass(images, labels, batch, common.make_model()),
        "torch_eager": torch_pass(images, labels, batch, compiled=False),
        "torch_compile": torch_pass(images, labels, batch, compiled=True),
    }
    times = common.time_in_turn(sides, rounds)
    speeds = {name: [len(labels) / t for t in times[name]] for name in times}
    medians = {name: statistics.median(speed) for name, speed in speeds.items()}
    ratios = common.speed_ratios(times)
    for name, speed in medians.items():
        ratio = f"  jax is {ratios[name]:.2f} times as fast" if name in ratios else ""
        print(f"{name:14s} {speed:8,.0f} images/s{ratio}", flush=True)
    return {"images_per_second": medians, "jax_times_faster": ratios, "rounds": speeds}


def measure_wide(batch: int, steps: int, rounds: int, side: int) -> dict[str, Any]:
    """Measures the wide network's steps, and products of square matrices of `side`, in turn."""
    images, labels = make_data(batch * steps)
    model = DeepEmotion(**fer2013_wide.get_config().model, rngs=Rngs(0))
    one = jnp.zeros((1, 48, 48, 1))
    forward = jax.jit(partial(model, plain=True)).lower(one).cost_analysis()["flops"]
    matrix, product = jnp.ones((side, side)), jax.jit(jnp.matmul)
    sides = {
        "steps": jax_pass(images, labels, batch, model),
        "product": lambda: product(matrix, matrix).block_until_ready(),
    }
    seconds = {name: statistics.median(t) for name, t in common.time_in_turn(sides, rounds).items()}
    speed, limit = len(labels) / seconds["steps"], 2 * side**3 / seconds["product"]
    share = 3 * forward * speed / limit  # a step is three forward passes of arithmetic
    print(f"wide network {speed:6,.0f} images/s, {share:.0%} of the product's rate", flush=True)
    return {
        "images_per_second": speed,
        "flop_per_image": 3 * forward,
        "product_flop_per_second": limit,
        "share_of_product": share,
    }


def compare_loop(train: int, validation: int, batch: int, rounds: int) -> dict[str, Any]:
    """Measures an epoch of `loop.fit` and as many bare steps."""
    images, labels = make_data(train + validation)
    bare = jax_pass(images[:train], labels[:train], batch, common.make_model())
    bare()
    seconds: dict[str, list[float]] = {"bare": [], "loop": []}
    for _ in range(rounds):
        began = time.perf_counter()
        bare()
        seconds["bare"].append(time.perf_counter() - began)
        seconds["loop"].append(loop_seconds(images, labels, train, batch))
    ratio = statistics.median(a / b for a, b in zip(seconds["loop"], seconds["bare"], strict=True))
    print(f"an epoch of loop.fit takes {ratio:.2f} times as long as its bare steps", flush=True)
    return {"loop_over_bare": ratio, "seconds": seconds}


def main() -> None:
    """Measures all parts and writes train_throughput.json."""
    arguments = common.parser(__doc__).parse_args()
    steps = {"batch": 128, "steps": 40, "rounds": 7}
    wide = {"batch": 128, "steps": 4, "rounds": 7, "side": 2048}
    loop = {"train": 28_709, "validation": 3_589, "batch": 128, "rounds": 3}
    if arguments.quick:
        steps = {"batch": 32, "steps": 2, "rounds": 1}
        wide = {"batch": 32, "steps": 1, "rounds": 1, "side": 256}
        loop = {"train": 64, "validation": 32, "batch": 32, "rounds": 1}
    with tempfile.TemporaryDirectory() as cache:
        # `loop.fit` compiles its programs again in each round.
        jax.config.update("jax_compilation_cache_dir", cache)
        results = {
            "steps": compare_steps(**steps),
            "wide": measure_wide(**wide),
            "loop": compare_loop(**loop),
        }
    settings = {"steps": steps, "wide": wide, "loop": loop}
    common.write_json(arguments.results, "train_throughput", settings, results)


if __name__ == "__main__":
    main()
