"""Training runs together: epochs, validation, checkpoints, metrics and progress in one folder.

One run, the folds of a cross-validation and the seeds of a repetition are the same: a list of runs
that one compiled program trains.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental.multihost_utils import broadcast_one_to_all

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_json
from deep_emotion_jax.runtime.checkpoint import Checkpoints
from deep_emotion_jax.runtime.devices import choose_devices, data_mesh
from deep_emotion_jax.runtime.log import Record, metrics_writer, show_progress
from deep_emotion_jax.runtime.multihost import any_process, is_first
from deep_emotion_jax.runtime.signals import Stopped, ready_or_stopped, stop_requests
from deep_emotion_jax.training.batching import step_examples, steps_per_epoch
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.epoch import first_bad_step, for_each_run, make_epoch
from deep_emotion_jax.training.optimizer import make_optimizer
from deep_emotion_jax.training.validation import RunState, make_validation, start_runs


class Results(NamedTuple):
    """Metrics of an epoch: per-step sums [R, steps], validation accuracy [R] and loss [R]."""

    sums: dict[str, Any]
    accuracy: Any
    loss: Any


def fit(
    models: Sequence[nnx.Module],
    experiment: Experiment,
    data: Split,
    runs: Sequence[Run],
    *,
    workdir: Path,
    about: Record,
) -> tuple[RunState, list[Record]]:
    """Trains one model per run, resuming from `workdir` if it holds a checkpoint.

    Writes checkpoints/, metrics.jsonl (one line per epoch and run) and TensorBoard events to the
    folder. A resumed training gives the same weights, bit for bit, on one machine. The devices of
    all processes take their share of each batch; every process calls this with the same arguments,
    and only the first writes metrics.

    Args:
      models: new models of one structure; their weights are the start.
      experiment: how to train: length, checkpoints, devices, recipe and augmentation are read.
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
    training = _Training(models, experiment, data, runs, workdir)
    with Checkpoints(training.folder) as checkpoints:
        done, state, records = 0, training.start, []
        restored = checkpoints.restore_newest(state)
        if restored:
            done, state, notes = restored
            records = notes["records"]
            print(f"resuming after epoch {done} from {training.folder / str(done)}")
        writer = training.metrics_writer(records)
        with stop_requests() as requests, writer as write:
            saver = _Saver(checkpoints, experiment.seconds_between_checkpoints, about, done)
            if done < training.epochs:
                training.compile(state)
            for epoch in range(done + 1, training.epochs + 1):
                state, lines = training.run_epoch(state, epoch, requests, saver.saved)
                write(lines)
                records.extend(lines)
                training.show(records, state, requests)
                saver.save(epoch, state, records, requests, last=epoch == training.epochs)
    return jax.device_get(state), records


class _Training:
    """The compiled programs, the data on the devices, and what an epoch reports.

    Attributes:
      folder: of the checkpoints.
      epochs: length of the training.
      start: the state before the first epoch.
    """

    def __init__(
        self,
        models: Sequence[nnx.Module],
        experiment: Experiment,
        data: Split,
        runs: Sequence[Run],
        workdir: Path,
    ):
        self._runs, self._keys, self._workdir = runs, data.keys, workdir
        self.folder = workdir / "checkpoints"
        self._index, self._counts = _stack([run.fold.train for run in runs])
        validation = _stack([run.fold.validation for run in runs])
        self._batch_size = experiment.recipe.batch_size
        self._steps = steps_per_epoch(self._index.shape[1], self._batch_size)
        self.epochs = experiment.epochs(self._steps)
        optimizer, self._rate = make_optimizer(experiment.recipe, self.epochs, self._steps)
        mesh = data_mesh(choose_devices(experiment.accelerator, experiment.num_devices))
        self._train, self._validate = _programs(models[0], optimizer, experiment, mesh)

        # What a process has computed may differ from another's in its last bits.
        state, soft_labels = broadcast_one_to_all((start_runs(models, optimizer), data.soft_labels))
        # A program, because `device_put` would compare all of the data between processes. Copies,
        # because the epoch program takes over the memory of the state it is given.
        put = jax.jit(
            lambda *trees: jax.tree.map(jnp.copy, trees),
            out_shardings=jax.NamedSharding(mesh, jax.P()),
        )
        self.start, self._own, self._validation, self._shared, self._soft_labels, seeds = put(
            state,
            (self._index, self._counts),
            validation,
            (data.images, data.labels),
            soft_labels,
            np.array([run.seed for run in runs]),
        )
        self._roots = jax.vmap(jax.random.key)(seeds)

    def metrics_writer(
        self, records: list[Record]
    ) -> AbstractContextManager[Callable[[list[Record]], None]]:
        """The writer of metrics in the first process, and one that writes nothing elsewhere."""
        if not is_first():
            return nullcontext(lambda lines: None)
        return metrics_writer(self._workdir, records, [run.name for run in self._runs])

    def compile(self, state: RunState) -> None:
        """Compiles the programs ahead of the first epoch, which `seconds` of it leave out."""
        print("compiling ...")  # not flushed: a closed output is noticed after the first epoch
        began = time.perf_counter()
        self._train = self._train.lower(*self._train_inputs(state, 1)).compile()
        self._validate = self._validate.lower(*self._validation_inputs(state, 1)).compile()
        print(f"compiled in {time.perf_counter() - began:.1f} s")

    def run_epoch(
        self, state: RunState, epoch: int, requests: list[str], saved: int
    ) -> tuple[RunState, list[Record]]:
        """Trains and validates one epoch.

        Args:
          state: after the epoch before; its arrays must not be used again.
          epoch: from 1.
          requests: to stop, as of `stop_requests`.
          saved: the epoch of the newest checkpoint.

        Returns:
          The new state, and a line of metrics for each run.

        Raises:
          UserError: if a loss is not finite.
          Stopped: if a stop was requested and the epoch takes too long.
        """
        began = time.perf_counter()
        train, sums = self._train(*self._train_inputs(state, epoch))
        state, accuracy, loss = self._validate(
            *self._validation_inputs(state._replace(train=train), epoch)
        )
        # One process of many must not leave an epoch that the others may wait for it in.
        if jax.process_count() == 1 and not ready_or_stopped(accuracy, requests):
            raise Stopped(
                f"stopped by {requests[0]} within epoch {epoch}; epoch {saved} is saved in "
                f"{self.folder}; run the same command again to resume"
            )
        results = Results(*jax.device_get((sums, accuracy, loss)))
        self._check_finite(results, epoch, saved)
        return state, self._lines(results, epoch, time.perf_counter() - began)

    def show(self, records: list[Record], state: RunState, requests: list[str]) -> None:
        """Prints the line of the newest epoch; a closed output is a request to stop."""
        best = jax.device_get((state.best_accuracy, state.best_epoch))
        try:
            show_progress(records, self.epochs, int(self._counts.sum()), *best)
        except BrokenPipeError:  # `| head` has gone: a signal to stop, as SIGPIPE is
            requests.append("a closed output")

    def _train_inputs(self, state: RunState, epoch: int) -> tuple[Any, ...]:
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._roots, epoch)
        return state.train, (keys, *self._own), (*self._shared, self._soft_labels)

    def _validation_inputs(self, state: RunState, epoch: int) -> tuple[Any, ...]:
        return (state, *self._validation), (np.int32(epoch), *self._shared)

    def _lines(self, results: Results, epoch: int, seconds: float) -> list[Record]:
        sums = results.sums
        return [
            {
                "epoch": epoch,
                "run": run.name,
                "train_loss": float(np.average(sums["loss"][i], weights=sums["count"][i])),
                "train_accuracy": float(sums["correct"][i].sum() / sums["count"][i].sum()),
                "validation_loss": float(results.loss[i]),
                "validation_accuracy": float(results.accuracy[i]),
                "learning_rate": float(self._rate(epoch * self._steps - 1)),
                "steps": self._steps,
                "seconds": seconds,
            }
            for i, run in enumerate(self._runs)
        ]

    def _check_finite(self, results: Results, epoch: int, saved: int) -> None:
        # Validation shows what the last step did to the weights, before they are saved.
        bad = first_bad_step(np.column_stack([results.sums["loss"], results.loss]))
        if bad is None:
            return
        run, step = bad[0], min(bad[1], self._steps - 1)
        key = jax.random.fold_in(self._roots[run], epoch)
        index, count = self._index[run], self._counts[run]
        chosen = step_examples(key, index, count, self._batch_size, step)
        batch = [self._keys[i] for i in chosen]
        path, name = self._workdir / "not_finite.json", self._runs[run].name
        if is_first():
            write_json(path, {"run": name, "epoch": epoch, "step": step + 1, "batch": batch})
        raise UserError(
            f"the loss of {name} is not finite at or after step {step + 1} of epoch {epoch}, whose "
            f"{len(batch)} images ({', '.join(batch[:3])} ...) are listed in {path}; the last good "
            f"checkpoint is epoch {saved} in {self.folder}; lower config.recipe.learning_rate"
        )


class _Saver:
    """Saves checkpoints when they are due, and ends the training where a stop was requested."""

    def __init__(self, checkpoints: Checkpoints, seconds: float, about: Record, saved: int):
        self._checkpoints, self._seconds, self._about = checkpoints, seconds, about
        self.saved, self._saved_at = saved, time.monotonic()

    def save(
        self,
        epoch: int,
        state: RunState,
        records: list[Record],
        requests: list[str],
        *,
        last: bool,
    ) -> None:
        """Saves after the last epoch, on a request to stop, and when `seconds` have passed.

        Raises:
          Stopped: if any process was requested to stop.
        """
        # Processes have clocks and signals of their own, and must do the same.
        due = time.monotonic() - self._saved_at > self._seconds
        due, stop = any_process(due, bool(requests))
        if due or stop or last:
            self._checkpoints.save(epoch, state, {"about": self._about, "records": records})
            self.saved, self._saved_at = epoch, time.monotonic()
        if stop:
            raise Stopped(
                f"stopped by {', '.join(requests) or 'another process'}; epoch {epoch} is saved in "
                f"{self._checkpoints.folder}; run the same command again to resume"
            )


def _programs(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    experiment: Experiment,
    mesh: jax.sharding.Mesh,
) -> tuple[Any, Any]:
    """The programs that train and validate an epoch of all runs."""
    everywhere = jax.NamedSharding(mesh, jax.P())
    epoch = make_epoch(model, optimizer, experiment.recipe, experiment.augmentation, mesh)
    epoch_of_runs = for_each_run(epoch)
    # The state alone is donated: XLA would write results over the indices too, which every epoch
    # reads, where an epoch of one step makes the sizes equal.
    train = jax.jit(
        lambda train, own, shared: epoch_of_runs((train, *own), shared),
        donate_argnums=0,
        out_shardings=everywhere,
    )
    return train, jax.jit(for_each_run(make_validation(model)), out_shardings=everywhere)


def _stack(indices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Index lists as rows of one array, the shorter ones filled up, and their lengths."""
    counts = np.array([len(index) for index in indices], np.int32)
    rows = [np.resize(index, counts.max()) for index in indices]
    return np.stack(rows).astype(np.int32), counts
