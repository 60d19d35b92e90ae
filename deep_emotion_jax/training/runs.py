"""The runs of one training: data on the devices, compiled programs, and metrics of epochs."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.data.stored import StoredRows
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.devices import choose_devices, data_mesh
from deep_emotion_jax.runtime.log import Record, metrics_writer
from deep_emotion_jax.runtime.multihost import any_process, is_first
from deep_emotion_jax.runtime.signals import Stopped, ready_or_stopped
from deep_emotion_jax.training.batching import step_examples, steps_per_epoch
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.epoch import first_bad_step, for_each_run
from deep_emotion_jax.training.in_memory import EpochsInMemory
from deep_emotion_jax.training.optimizer import make_optimizer
from deep_emotion_jax.training.restart import DeadStarts
from deep_emotion_jax.training.selection import WINDOW_STEPS, restart_seed, start_epoch
from deep_emotion_jax.training.streaming import StreamedEpochs
from deep_emotion_jax.training.validation import RunState, make_validation, start_runs
from deep_emotion_jax.training.within_epoch import (
    Begun,
    Between,
    Parts,
    Sums,
    joined,
    train_parts,
)


class Results(NamedTuple):
    """Metrics of an epoch: per-step sums [R, steps], validation accuracy [R] and loss [R]."""

    sums: dict[str, Any]
    accuracy: Any
    loss: Any


class TrainingRuns:
    """Compiles and runs the epochs of all R runs.

    Attributes:
      folder: folder of the checkpoints.
      streamed: whether images are read from the disk during training.
      steps: number of steps in an epoch.
      epochs: number of epochs.
      images: number of training images in an epoch, over all runs.
      judged: the epoch after which dead runs are restarted, or None.
      start: the state before the first epoch.
    """

    def __init__(
        self,
        models: Sequence[DeepEmotion],
        experiment: Experiment,
        data: Split,
        runs: Sequence[Run],
        workdir: Path,
        new_model: Callable[[int], DeepEmotion] | None,
    ):
        self._runs, self._keys, self._workdir = runs, data.keys, workdir
        self._new_model = new_model
        self.folder = workdir / "checkpoints"
        self._index, self._counts = _stack([run.fold.train for run in runs])
        self.images = int(self._counts.sum())
        self._batch_size = experiment.recipe.batch_size
        self.steps = steps_per_epoch(self._index.shape[1], self._batch_size)
        self.epochs = experiment.epochs(self.steps)
        self.judged = start_epoch(self.steps, self.epochs) if new_model else None
        window = math.ceil(WINDOW_STEPS / self.steps)
        self._dead_starts = DeadStarts(runs, data.labels, experiment.recipe.label_smoothing, window)
        self._optimizer, self._rate = make_optimizer(experiment.recipe, self.epochs, self.steps)
        mesh = data_mesh(choose_devices(experiment.accelerator, experiment.num_devices))
        everywhere = jax.NamedSharding(mesh, jax.P())
        # Jitted, because `device_put` would compare all data between processes. Copied, because
        # the epoch program donates the memory of its state.
        self._put = jax.jit(lambda *trees: jax.tree.map(jnp.copy, trees), out_shardings=everywhere)
        self.start = self._start(models, np.zeros(len(runs), np.int32))
        self._validate: Any = jax.jit(
            for_each_run(make_validation(models[0])), out_shardings=everywhere
        )
        self.streamed = experiment.streaming == "always" or isinstance(data.images, StoredRows)
        validation = _stack([run.fold.validation for run in runs])
        self._epochs: EpochsInMemory | StreamedEpochs
        if self.streamed:
            self._epochs = StreamedEpochs(
                models[0], self._optimizer, experiment, data, self._index, self._counts, mesh
            )
            seen, places = np.unique(validation[0], return_inverse=True)
            validation = (places.reshape(validation[0].shape).astype(np.int32), validation[1])
            self._validation, self._shared = self._put(
                validation, (data.images[seen], data.labels[seen])
            )
        else:
            own, self._validation, self._shared, soft = self._put(
                (self._index, self._counts),
                validation,
                (data.images, data.labels),
                broadcast_one_to_all(data.soft_labels),
            )
            self._epochs = EpochsInMemory(
                models[0], self._optimizer, experiment, own, (*self._shared, soft), mesh
            )

    def metrics_writer(
        self, records: list[Record]
    ) -> AbstractContextManager[Callable[[list[Record]], None]]:
        """Returns the writer of metrics; in other processes than the first, it writes nothing."""
        if not is_first():
            return nullcontext(lambda lines: None)
        return metrics_writer(self._workdir, records, [run.name for run in self._runs])

    def compile(self, state: RunState) -> None:
        """Compiles the programs before the first epoch, whose `seconds` thus exclude it."""
        print("compiling ...")  # not flushed: `loop` handles a closed output after an epoch
        began = time.perf_counter()
        self._epochs.compile(state.train, self._epoch_keys(1))
        self._validate = self._validate.lower(*self._validation_inputs(state, 1)).compile()
        print(f"compiled in {time.perf_counter() - began:.1f} s")

    def run_epoch(
        self,
        state: RunState,
        epoch: int,
        requests: list[str],
        saved: int,
        begun: Begun | None = None,
        between: Between | None = None,
    ) -> tuple[RunState, list[Record]]:
        """Trains and validates one epoch.

        Args:
          state: the state before this epoch, or within it; its arrays are donated.
          epoch: number of the epoch, from 1.
          requests: requests to stop, from `stop_requests`.
          saved: the epoch of the newest checkpoint.
          begun: the steps already done in this epoch, or None.
          between: called between the parts of a streamed epoch; may save a checkpoint or raise
            `Stopped`.

        Returns:
          The new state, and a record of metrics for each run.

        Raises:
          UserError: if a loss is not finite.
          Stopped: if a stop was requested and the epoch takes too long.
        """
        began = time.perf_counter()

        def run(first: int) -> Parts:
            return self._epochs.run(state.train, self._epoch_keys(epoch), first)

        def wait(sums: Sums) -> None:
            self._wait(sums["loss"], epoch, requests, saved)

        trained, parts = train_parts(run, state, self.steps, begun, wait, between)
        state, accuracy, loss = self._validate(*self._validation_inputs(trained, epoch))
        wait({"loss": accuracy})
        results = Results(joined(parts), *jax.device_get((accuracy, loss)))
        self._check_finite(results, epoch, saved)
        seconds = time.perf_counter() - began + (begun.seconds if begun else 0)
        return state, self._lines(results, epoch, seconds)

    def _wait(self, result: jax.Array, epoch: int, requests: list[str], saved: int) -> None:
        """Waits for a result, but only briefly once a stop is requested."""
        # With several processes, none may leave an epoch in which the others wait for it.
        if jax.process_count() == 1 and not ready_or_stopped(result, requests):
            raise Stopped(
                f"stopped by {requests[0]} within epoch {epoch}; epoch {saved} is saved in "
                f"{self.folder}; run the same command again to resume"
            )
        result.block_until_ready()

    def begun_like(self, state: RunState) -> tuple[RunState, Sums]:
        """Returns the structure of a checkpoint within an epoch: state, and sums of all steps."""
        zeros = np.zeros((len(self._runs), self.steps), np.float32)
        return state, dict.fromkeys(("loss", "correct", "count"), zeros)

    def set_seeds(self, state: RunState) -> None:
        """Derives the random keys of the runs from their seeds and numbers of restarts."""
        self._roots = jax.vmap(jax.random.key)(*self._put(np.array(self._seeds(state.restarts))))

    def restart_dead(
        self, state: RunState, records: list[Record], requests: list[str], saved: int
    ) -> RunState:
        """Returns the state after epoch `judged`, with dead runs restarted.

        Their epochs up to `judged` run again; the metrics keep the first attempt.

        Raises:
          UserError: if a loss is not finite.
          Stopped: if a stop is requested during a restart.
        """

        def stop_if_asked(*_: Any) -> None:
            if any_process(bool(requests))[0]:
                raise Stopped(
                    f"stopped by {', '.join(requests) or 'another process'} while restarting "
                    f"runs; epoch {saved} is saved in {self.folder}; run the same command again "
                    "to resume"
                )

        def train_start(restarts: np.ndarray) -> tuple[RunState, list[Record]]:
            assert self._new_model is not None
            assert self.judged is not None
            again = self._start([self._new_model(seed) for seed in self._seeds(restarts)], restarts)
            self.set_seeds(again)
            new_records: list[Record] = []
            for epoch in range(1, self.judged + 1):
                again, lines = self.run_epoch(again, epoch, requests, saved, None, stop_if_asked)
                new_records.extend(lines)
                stop_if_asked()
            return again, new_records

        (state,) = self._put(self._dead_starts.replace(state, records, train_start))
        self.set_seeds(state)
        return state

    def _start(self, models: Sequence[DeepEmotion], restarts: np.ndarray) -> RunState:
        # Processes may compute weights that differ in their last bits.
        state = broadcast_one_to_all(start_runs(models, self._optimizer, restarts))
        return self._put(state)[0]

    def _seeds(self, restarts: Any) -> list[int]:
        counts = np.asarray(restarts).tolist()
        return [restart_seed(run.seed, n) for run, n in zip(self._runs, counts, strict=True)]

    def _epoch_keys(self, epoch: int) -> jax.Array:
        return jax.vmap(jax.random.fold_in, (0, None))(self._roots, epoch)

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
                "learning_rate": float(self._rate(epoch * self.steps - 1)),
                "steps": self.steps,
                "seconds": seconds,
            }
            for i, run in enumerate(self._runs)
        ]

    def _check_finite(self, results: Results, epoch: int, saved: int) -> None:
        # The validation loss also covers the last step's update, before it is saved.
        bad = first_bad_step(np.column_stack([results.sums["loss"], results.loss]))
        if bad is None:
            return
        run, step = bad[0], min(bad[1], self.steps - 1)
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


def _stack(indices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stacks index lists as rows of one array, the shorter ones padded; also returns lengths."""
    counts = np.array([len(index) for index in indices], np.int32)
    rows = [np.resize(index, counts.max()) for index in indices]
    return np.stack(rows).astype(np.int32), counts
