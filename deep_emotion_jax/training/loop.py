"""The training loop: epochs, checkpoints, metrics and progress.

It trains a list of runs in one compiled program: a single run, the folds of a cross-validation, or
several seeds.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.runtime.checkpoint import Checkpoints
from deep_emotion_jax.runtime.log import Record, show_progress
from deep_emotion_jax.runtime.multihost import any_process
from deep_emotion_jax.runtime.signals import Stopped, stop_requests
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.runs import TrainingRuns
from deep_emotion_jax.training.validation import RunState
from deep_emotion_jax.training.within_epoch import Begun


def fit(
    models: Sequence[DeepEmotion],
    experiment: Experiment,
    data: Split,
    runs: Sequence[Run],
    *,
    workdir: Path,
    about: Record,
    new_model: Callable[[int], DeepEmotion] | None = None,
) -> tuple[RunState, list[Record]]:
    """Trains one model per run, resuming from `workdir` if it holds a checkpoint.

    Writes checkpoints/, metrics.jsonl (one line per epoch and run) and TensorBoard events to the
    folder. On one machine, a resumed training gives bitwise identical weights. Each batch is
    divided between the devices of all processes; every process calls this with the same arguments,
    and only the first writes metrics.

    Args:
      models: the initial model of each run; all have the same structure.
      experiment: its length, checkpoints, devices, recipe and augmentation are used.
      data: the examples that the folds of the runs index; test examples are not read.
      runs: fold and seed of each run.
      workdir: an existing folder.
      about: provenance of the runs, stored in each checkpoint as JSON.
      new_model: makes a model from a seed. If given, a run that learns nothing in its first steps
        is restarted from another seed (see `restart`).

    Returns:
      The final state, as NumPy arrays, and the metrics of every epoch and run.

    Raises:
      UserError: if the loss is not finite, no checkpoint can be read, or a file cannot be written.
      Stopped: after SIGTERM or SIGINT; the current epoch is saved if it ends in time.
    """
    training = TrainingRuns(models, experiment, data, runs, workdir, new_model)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(training.folder))
        within = None
        if training.streamed:
            within = stack.enter_context(Checkpoints(workdir / "checkpoints_within_epochs"))
        done, state, records, begun = _restored(training, checkpoints, within)
        writer = training.metrics_writer(records)
        requests = stack.enter_context(stop_requests())
        write = stack.enter_context(writer)
        saver = _Saver(checkpoints, within, experiment.seconds_between_checkpoints, about, done)
        training.set_seeds(state)
        if done < training.epochs:
            training.compile(state)
        for epoch in range(done + 1, training.epochs + 1):
            between = partial(saver.save_within, epoch, records, requests) if within else None
            state, lines = training.run_epoch(state, epoch, requests, saver.saved, begun, between)
            begun = None
            write(lines)
            records.extend(lines)
            _show(records, state, training, requests)
            if epoch == training.judged:
                state = training.restart_dead(state, records, requests, saver.saved)
            saver.save(epoch, state, records, requests, last=epoch == training.epochs)
    return jax.device_get(state), records


def _restored(
    training: TrainingRuns, checkpoints: Checkpoints, within: Checkpoints | None
) -> tuple[int, RunState, list[Record], Begun | None]:
    """Returns the last complete epoch, the state, the records, and a partial epoch if any."""
    done, state, records, begun = 0, training.start, [], None
    if found := checkpoints.restore_newest(state):
        done, state, notes = found
        records = notes["records"]
    if within and (found := within.restore_newest(training.begun_like(state), needed=False)):
        _, (begun_state, sums), notes = found
        if notes["epoch"] > done:
            done, state, records = notes["epoch"] - 1, begun_state, notes["records"]
            begun = Begun(notes["steps"], sums, notes["seconds"])
            print(f"resuming after step {begun.steps} of epoch {done + 1} from {within.folder}")
            return done, state, records, begun
    if done:
        print(f"resuming after epoch {done} from {training.folder / str(done)}")
    return done, state, records, None


def _show(
    records: list[Record], state: RunState, training: TrainingRuns, requests: list[str]
) -> None:
    """Prints a line for the newest epoch; a closed standard output requests a stop."""
    best = jax.device_get((state.best_accuracy, state.best_epoch))
    try:
        show_progress(records, training.epochs, training.images, *best)
    except BrokenPipeError:  # such as `| head`, which has exited
        requests.append("a closed output")


class _Saver:
    """Saves checkpoints when they are due, and stops the training on request."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        within: Checkpoints | None,
        seconds: float,
        about: Record,
        saved: int,
    ):
        self._checkpoints, self._within = checkpoints, within
        self._seconds, self._about = seconds, about
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
          Stopped: if any process received a request to stop.
        """
        due, stop = self._due(requests)
        if due or stop or last:
            self._checkpoints.save(epoch, state, {"about": self._about, "records": records})
            self.saved, self._saved_at = epoch, time.monotonic()
        if stop:
            raise Stopped(
                f"stopped by {', '.join(requests) or 'another process'}; epoch {epoch} is saved in "
                f"{self._checkpoints.folder}; run the same command again to resume"
            )

    def save_within(
        self,
        epoch: int,
        records: list[Record],
        requests: list[str],
        state: RunState,
        so_far: Callable[[], Begun],
    ) -> None:
        """Saves within an epoch, under the conditions of `save`; `so_far` returns its progress."""
        due, stop = self._due(requests)
        if not (due or stop):
            return
        assert self._within is not None
        begun = so_far()
        notes = {
            "about": self._about,
            "records": records,
            "epoch": epoch,
            "steps": begun.steps,
            "seconds": begun.seconds,
        }
        # The number of all steps so far, which rises from one epoch to the next.
        number = (epoch - 1) * begun.sums["loss"].shape[1] + begun.steps
        self._within.save(number, (state, begun.sums), notes)
        self._saved_at = time.monotonic()
        if stop:
            raise Stopped(
                f"stopped by {', '.join(requests) or 'another process'}; {begun.steps} steps of "
                f"epoch {epoch} are saved in {self._within.folder}; run the same command again to "
                "resume"
            )

    def _due(self, requests: list[str]) -> tuple[bool, ...]:
        """Returns whether to save, and whether to stop."""
        # Each process has its own clock and signals, but all must act alike.
        return any_process(time.monotonic() - self._saved_at > self._seconds, bool(requests))
