"""Training runs together: epochs, checkpoints, metrics and progress in one folder.

One run, the folds of a cross-validation and the seeds of a repetition are the same: a list of runs
that one compiled program trains.
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
      new_model: makes a new model from a seed. With it, a run that has learned nothing in its first
        steps is started anew from another seed (`restart`); without it, it trains on.

    Returns:
      The final state, as NumPy arrays, and the metrics of every epoch and run.

    Raises:
      UserError: if the loss stops being finite, no checkpoint can be read, or nothing can be
        written.
      Stopped: after SIGTERM or SIGINT: the epoch that was running is saved if it ends in time.
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
    """The epochs done, the state and the records to resume from, and what is done of an epoch."""
    done, state, records, begun = 0, training.start, [], None
    if found := checkpoints.restore_newest(state):
        done, state, notes = found
        records = notes["records"]
    if within and (found := within.restore_newest(training.begun_like(state))):
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
    """Prints the line of the newest epoch; a closed output is a request to stop."""
    best = jax.device_get((state.best_accuracy, state.best_epoch))
    try:
        show_progress(records, training.epochs, training.images, *best)
    except BrokenPipeError:  # `| head` has gone: a signal to stop, as SIGPIPE is
        requests.append("a closed output")


class _Saver:
    """Saves checkpoints when they are due, and ends the training where a stop was requested."""

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
          Stopped: if any process was requested to stop.
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
        """Saves within an epoch, as `save`; `so_far` says what is done of it."""
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
        # Numbers rise from epoch to epoch.
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
        """Whether to save, and whether to stop."""
        # Processes have clocks and signals of their own, and must do the same.
        return any_process(time.monotonic() - self._saved_at > self._seconds, bool(requests))
