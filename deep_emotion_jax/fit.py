"""The training run: epochs, validation, checkpoints, metrics and progress in one folder."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tensorboardX import SummaryWriter

from deep_emotion_jax.checkpoint import Checkpoints
from deep_emotion_jax.data import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.train import (
    Recipe,
    TrainState,
    first_bad_step,
    init_state,
    make_epoch,
    make_logits,
    make_optimizer,
    smoothed_cross_entropy,
    steps_per_epoch,
)


class RunState(NamedTuple):
    """What a checkpoint holds: training's state, and the best weights so far on validation.

    The best weights are those with the highest validation accuracy, the earliest among equals.
    """

    train: TrainState
    best_params: Any
    best_stats: Any
    best_accuracy: jax.Array
    best_epoch: jax.Array


def fit(
    model: nnx.Module,
    recipe: Recipe,
    train: Split,
    validation: Split,
    *,
    seed: int,
    workdir: Path,
    seconds_between_checkpoints: float,
) -> tuple[RunState, list[dict[str, Any]]]:
    """Trains a model, or goes on with the training that `workdir` holds.

    Writes checkpoints/, metrics.jsonl (one line an epoch) and TensorBoard events to the folder.
    Training that was cut and started again gives the same weights, bit for bit, on one machine.

    Args:
      model: a new model; its weights are the start.
      recipe: how to train.
      train: training split.
      validation: split that chooses the best epoch. No test data comes here.
      seed: root of the keys of shuffling, augmentation and dropout.
      workdir: an existing folder.
      seconds_between_checkpoints: at least so long from one to the next; the last epoch has one.

    Returns:
      The final state and the metrics of every epoch.

    Raises:
      UserError: if the loss stops being finite, or no checkpoint can be read.
    """
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated = jax.NamedSharding(mesh, jax.P())
    steps = steps_per_epoch(len(train.labels), recipe.batch_size)
    optimizer, learning_rate = make_optimizer(recipe, steps)
    epoch_program = jax.jit(make_epoch(model, optimizer, recipe, mesh), donate_argnums=0)
    logits_program = jax.jit(make_logits(model))

    @jax.jit
    def validate(state: RunState, epoch, images, labels):
        logits = logits_program(state.train.ema, state.train.stats, images)
        accuracy = jnp.mean(logits.argmax(-1) == labels)
        better = accuracy > state.best_accuracy
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (state.train.ema, state.train.stats, accuracy, epoch),
            (state.best_params, state.best_stats, state.best_accuracy, state.best_epoch),
        )
        loss = smoothed_cross_entropy(logits, labels, 0.0).mean()
        return RunState(state.train, *best), accuracy, loss

    start = init_state(model, optimizer)
    state = RunState(start, start.params, start.stats, jnp.float32(-1), jnp.int32(0))
    # Copies, because the epoch program takes over the memory of the state it is given.
    state = jax.device_put(jax.tree.map(jnp.copy, state), replicated)
    arrays = jax.device_put(
        (train.images, train.labels, validation.images, validation.labels), replicated
    )
    train_images, train_labels, validation_images, validation_labels = arrays
    root = jax.random.key(seed)

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore_newest(state)
        done, state = restored if restored else (0, state)
        records = _read_records(workdir / "metrics.jsonl", done)
        if done:
            print(f"resuming after epoch {done} from {workdir / 'checkpoints'}", flush=True)
        with _metrics_writer(workdir, records) as write:
            saved, saved_at = done, time.monotonic()
            for epoch in range(done + 1, recipe.num_epochs + 1):
                began = time.perf_counter()
                train_state, sums = epoch_program(
                    state.train, jax.random.fold_in(root, epoch), train_images, train_labels
                )
                state, accuracy, loss = validate(
                    state._replace(train=train_state),
                    jnp.int32(epoch),
                    validation_images,
                    validation_labels,
                )
                sums = jax.device_get(sums)
                bad = first_bad_step(sums["loss"])
                if bad is not None:
                    raise UserError(
                        f"the loss is not finite at step {bad + 1} of epoch {epoch} (seed {seed}); "
                        f"the last good checkpoint is epoch {saved} in {workdir / 'checkpoints'}; "
                        "lower recipe.learning_rate"
                    )
                record = {
                    "epoch": epoch,
                    "train_loss": float(np.average(sums["loss"], weights=sums["count"])),
                    "train_accuracy": float(sums["correct"].sum() / sums["count"].sum()),
                    "validation_loss": float(loss),
                    "validation_accuracy": float(accuracy),
                    "learning_rate": float(learning_rate(epoch * steps - 1)),
                    "seconds": time.perf_counter() - began,
                }
                write(record)
                records.append(record)
                _show_progress(records, recipe.num_epochs, len(train.labels), state)
                last = epoch == recipe.num_epochs
                if last or time.monotonic() - saved_at > seconds_between_checkpoints:
                    checkpoints.save(epoch, state)
                    saved, saved_at = epoch, time.monotonic()
    return state, records


def _read_records(path: Path, epochs: int) -> list[dict[str, Any]]:
    """The metrics of the first `epochs` epochs; what a killed run wrote after them is dropped."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line a kill cut short
            break
        if record["epoch"] <= epochs:
            records.append(record)
    if [record["epoch"] for record in records] != list(range(1, epochs + 1)):
        raise UserError(
            f"{path} does not hold each of the {epochs} epochs of the newest checkpoint once; "
            "choose another --workdir"
        )
    return records


@contextmanager
def _metrics_writer(workdir: Path, records: list[dict[str, Any]]) -> Iterator[Any]:
    """Appends to metrics.jsonl and TensorBoard's events, first cut back to the given records."""
    path = workdir / "metrics.jsonl"
    kept = path.with_suffix(".tmp")
    kept.write_text("".join(json.dumps(record) + "\n" for record in records))
    kept.replace(path)
    with (
        path.open("a") as file,
        SummaryWriter(str(workdir / "tensorboard"), purge_step=len(records) + 1) as events,
    ):

        def write(record: dict[str, Any]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()
            for name, value in record.items():
                if name != "epoch":
                    events.add_scalar(name, value, record["epoch"])

        yield write


def _show_progress(records: list[dict], epochs: int, images: int, state: RunState) -> None:
    now = records[-1]
    recent = float(np.median([record["seconds"] for record in records[-5:]]))
    left = recent * (epochs - now["epoch"])
    print(
        f"epoch {now['epoch']}/{epochs}  loss {now['train_loss']:.4f}  "
        f"train {now['train_accuracy']:.2%}  validation {now['validation_accuracy']:.2%} "
        f"(best {float(state.best_accuracy):.2%} at {int(state.best_epoch)})  "
        f"{images / now['seconds']:,.0f} images/s  {left // 60:.0f}:{left % 60:02.0f} left",
        flush=True,
    )
