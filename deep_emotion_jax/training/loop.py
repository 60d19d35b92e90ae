"""Training runs together: epochs, validation, checkpoints, metrics and progress in one folder.

One run, the folds of a cross-validation and the seeds of a repetition are the same: a list of runs
that one compiled program trains.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.multihost_utils import broadcast_one_to_all

from deep_emotion_jax.data.folds import Fold
from deep_emotion_jax.data.split import Split, step_examples, steps_per_epoch
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.logits import make_logits
from deep_emotion_jax.runtime.checkpoint import Checkpoints
from deep_emotion_jax.runtime.log import Record, metrics_writer, show_progress
from deep_emotion_jax.runtime.multihost import any_process, is_first
from deep_emotion_jax.runtime.signals import Stopped, ready_or_stopped, stop_requests
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.epoch import (
    TrainState,
    first_bad_step,
    for_each_run,
    init_state,
    make_epoch,
    make_optimizer,
    smoothed_cross_entropy,
)
from deep_emotion_jax.training.selection import Score, is_better


class Run(NamedTuple):
    """One training: a fold and a seed of its own for weights, shuffling, augmentation, dropout."""

    fold: Fold
    seed: int

    @property
    def name(self) -> str:
        """Names its files and lines."""
        return f"{self.fold.name}-seed-{self.seed}"


class RunState(NamedTuple):
    """What a checkpoint holds of each run: training's state, and the weights chosen so far.

    `selection.is_better` says which weights are chosen. Every array has a leading axis of runs.
    """

    train: TrainState
    best_params: Any
    best_stats: Any
    best_accuracy: jax.Array
    best_loss: jax.Array
    best_epoch: jax.Array


def fit(
    models: Sequence[nnx.Module],
    experiment: Experiment,
    data: Split,
    runs: Sequence[Run],
    *,
    workdir: Path,
    about: Record,
) -> tuple[RunState, list[Record]]:
    """Trains one model a run, or goes on with the training that `workdir` holds.

    Writes checkpoints/, metrics.jsonl (one line an epoch and run) and TensorBoard events to the
    folder. Training that was cut and started again gives the same weights, bit for bit, on one
    machine. All devices of all processes take their share of each batch; every process calls this
    with the same arguments, and only the first writes metrics.

    Args:
      models: new models of one structure; their weights are the start.
      experiment: how to train: epochs, checkpoints, recipe and augmentation are read.
      data: what the folds of the runs index. Their test examples are not touched.
      runs: fold and seed of each.
      workdir: an existing folder.
      about: where the runs come from; stored in each checkpoint as JSON.

    Returns:
      The final state, as NumPy arrays, and the metrics of every epoch and run.

    Raises:
      UserError: if the loss stops being finite, no checkpoint can be read, or nothing can be
        written.
      Stopped: after SIGTERM or SIGINT: the epoch that was running is saved if it ends in time.
    """
    recipe = experiment.recipe
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    train_index, train_count = _stack([run.fold.train for run in runs])
    validation_index, validation_count = _stack([run.fold.validation for run in runs])
    steps = steps_per_epoch(train_index.shape[1], recipe.batch_size)
    num_epochs = experiment.epochs(steps)
    optimizer, learning_rate = make_optimizer(recipe, num_epochs, steps)
    everywhere = jax.NamedSharding(mesh, jax.P())
    epoch_of_runs = for_each_run(
        make_epoch(models[0], optimizer, recipe, experiment.augmentation, mesh)
    )
    # The state alone is donated: XLA would write results over the indices too, which every epoch
    # reads, where an epoch of one step makes the sizes equal.
    train_epoch = jax.jit(
        lambda train, own, shared: epoch_of_runs((train, *own), shared),
        donate_argnums=0,
        out_shardings=everywhere,
    )
    validate = jax.jit(for_each_run(_make_validation(models[0])), out_shardings=everywhere)

    starts = [init_state(model, optimizer) for model in models]
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    state = RunState(
        start,
        start.params,
        start.stats,
        best_accuracy=jnp.full(len(runs), -1.0),
        best_loss=jnp.full(len(runs), jnp.inf),
        best_epoch=jnp.zeros(len(runs), jnp.int32),
    )
    # What a process has computed may differ from another's in its last bits.
    state, soft_labels = broadcast_one_to_all((state, data.soft_labels))
    # A program, because `device_put` would compare all of the data between processes. Copies,
    # because the epoch program takes over the memory of the state it is given.
    put = jax.jit(lambda *trees: jax.tree.map(jnp.copy, trees), out_shardings=everywhere)
    state, train_own, validation_own, shared, soft_labels, seeds = put(
        state,
        (train_index, train_count),
        (validation_index, validation_count),
        (data.images, data.labels),
        soft_labels,
        np.array([run.seed for run in runs]),
    )
    roots = jax.vmap(jax.random.key)(seeds)

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore_newest(state)
        done, records = 0, []
        if restored:
            done, state, notes = restored
            records = notes["records"]
            print(f"resuming after epoch {done} from {workdir / 'checkpoints' / str(done)}")
        nobody = nullcontext(lambda lines: None)
        names = [run.name for run in runs]
        writer = metrics_writer(workdir, records, names) if is_first() else nobody
        with stop_requests() as requests, writer as write:
            saved, saved_at = done, time.monotonic()
            for epoch in range(done + 1, num_epochs + 1):
                began = time.perf_counter()
                keys = jax.vmap(jax.random.fold_in, (0, None))(roots, epoch)
                train_state, sums = train_epoch(
                    state.train, (keys, *train_own), (*shared, soft_labels)
                )
                state, accuracy, loss = validate(
                    (state._replace(train=train_state), *validation_own),
                    (np.int32(epoch), *shared),
                )
                # Of many processes none leaves an epoch that the others may be waiting for it in.
                if jax.process_count() == 1 and not ready_or_stopped(accuracy, requests):
                    raise Stopped(
                        f"stopped by {requests[0]} within epoch {epoch}; epoch {saved} is saved in "
                        f"{workdir / 'checkpoints'}; the same command goes on"
                    )
                sums, accuracy, loss = jax.device_get((sums, accuracy, loss))
                # Validation shows what the last step did to the weights, before they are saved.
                bad = first_bad_step(np.column_stack([sums["loss"], loss]))
                if bad is not None:
                    run, step = bad[0], min(bad[1], steps - 1)
                    chosen = step_examples(
                        jax.random.fold_in(roots[run], epoch),
                        train_index[run],
                        train_count[run],
                        recipe.batch_size,
                        step,
                    )
                    batch = [data.keys[i] for i in chosen]
                    raise _not_finite(workdir, runs[run], epoch, step + 1, batch, saved)
                seconds = time.perf_counter() - began
                lines = [
                    {
                        "epoch": epoch,
                        "run": run.name,
                        "train_loss": float(np.average(sums["loss"][i], weights=sums["count"][i])),
                        "train_accuracy": float(sums["correct"][i].sum() / sums["count"][i].sum()),
                        "validation_loss": float(loss[i]),
                        "validation_accuracy": float(accuracy[i]),
                        "learning_rate": float(learning_rate(epoch * steps - 1)),
                        "seconds": seconds,
                    }
                    for i, run in enumerate(runs)
                ]
                write(lines)
                records.extend(lines)
                try:
                    best = jax.device_get((state.best_accuracy, state.best_epoch))
                    show_progress(records, num_epochs, int(train_count.sum()), *best)
                except BrokenPipeError:  # `| head` has gone: a signal to stop, as SIGPIPE is
                    requests.append("a closed output")
                # Processes have clocks and signals of their own, and must do the same.
                due = time.monotonic() - saved_at > experiment.seconds_between_checkpoints
                due, stop = any_process(due, bool(requests))
                if due or stop or epoch == num_epochs:
                    checkpoints.save(epoch, state, {"about": about, "records": records})
                    saved, saved_at = epoch, time.monotonic()
                if stop:
                    raise Stopped(
                        f"stopped by {', '.join(requests) or 'another process'}; epoch {epoch} is "
                        f"saved in "
                        f"{workdir / 'checkpoints'}; the same command goes on"
                    )
    return jax.device_get(state), records


def _not_finite(
    workdir: Path, run: Run, epoch: int, step: int, batch: list[str], saved: int
) -> UserError:
    """The error of a loss that is not finite; leaves the keys of the step's images in a file."""
    path = workdir / "not_finite.json"
    if is_first():
        write_json(path, {"run": run.name, "epoch": epoch, "step": step, "batch": batch})
    return UserError(
        f"the loss of {run.name} is not finite at or after step {step} of epoch {epoch}, whose "
        f"{len(batch)} images ({', '.join(batch[:3])} ...) are listed in {path}; the last good "
        f"checkpoint is epoch {saved} in {workdir / 'checkpoints'}; lower recipe.learning_rate"
    )


def _make_validation(model: nnx.Module) -> Any:
    """The program that scores one run's averaged weights and keeps them if they are better."""
    program = make_logits(model)

    def validate(state: RunState, index, count, epoch, images, labels):
        logits = program(state.train.ema, state.train.stats, images[index])
        real = jnp.arange(len(index)) < count
        accuracy = jnp.sum(real * (logits.argmax(-1) == labels[index])) / count
        loss = jnp.sum(real * smoothed_cross_entropy(logits, labels[index], 0.0)) / count
        better = is_better(
            count, Score(accuracy, loss), Score(state.best_accuracy, state.best_loss)
        )
        newest = RunState(state.train, state.train.ema, state.train.stats, accuracy, loss, epoch)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), newest[1:], state[1:])
        return RunState(state.train, *kept), accuracy, loss

    return validate


def _stack(indices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Index lists as rows of one array, the shorter ones filled up, and their lengths."""
    counts = np.array([len(index) for index in indices], np.int32)
    rows = [np.resize(index, counts.max()) for index in indices]
    return np.stack(rows).astype(np.int32), counts
