"""Progress of training: metrics.jsonl, TensorBoard events, and a printed line per epoch."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_text

Record = dict[str, Any]
"""The metrics of one epoch of one run."""


@contextmanager
def metrics_writer(
    workdir: Path, records: list[Record], run_names: Sequence[str]
) -> Iterator[Callable[[list[Record]], None]]:
    """Yields a function that appends records to metrics.jsonl and to TensorBoard's events.

    Both files are first reset to `records`, from the checkpoint that training resumes from. This
    removes partial lines and epochs that will be trained again.

    Raises:
      UserError: if they cannot be written.
    """
    path = workdir / "metrics.jsonl"
    with ExitStack() as stack:
        # Not SummaryWriter: a full disk ends its thread, and later writes then block.
        events = {}
        with _disk_errors(workdir):
            write_text(path, "".join(json.dumps(record) + "\n" for record in records))
            file = stack.enter_context(path.open("a"))
            start = SessionLog(status=SessionLog.START)
            purged = Event(step=len(records) // len(run_names) + 1, session_log=start)
            for name in run_names:
                folder = workdir / "tensorboard" / name
                folder.mkdir(parents=True, exist_ok=True)
                events[name] = EventsWriter(str(folder / "events"))
                stack.callback(events[name].close)
                events[name].write_event(purged)

        def write(lines: list[Record]) -> None:
            if not path.exists():  # the open file would still accept lines
                raise UserError(
                    f"{path} is missing: the folder was moved or removed during the training; "
                    "run the same command again"
                )
            with _disk_errors(workdir):
                file.write("".join(json.dumps(record) + "\n" for record in lines))
                file.flush()
                for record in lines:
                    own = events[record["run"]]
                    for name, value in record.items():
                        if name not in ("epoch", "run", "steps"):
                            summary = scalar(name, value)
                            own.write_event(
                                Event(wall_time=time.time(), step=record["epoch"], summary=summary)
                            )
                    own.flush()

        yield write


def show_progress(
    records: list[Record], epochs: int, images: int, best: np.ndarray, best_epoch: np.ndarray
) -> None:
    """Prints the newest epoch: metrics averaged over runs, speed, and the time left.

    Args:
      records: of all epochs so far, ordered by epoch.
      epochs: number of epochs of the training.
      images: number of training images per epoch, over all runs.
      best: [R] validation accuracy of each run's weights kept so far.
      best_epoch: [R] the epochs of these weights.
    """
    count = len(best)
    now = records[-count:]
    recent = [record["seconds"] for record in records[::count][-5:]]
    left = float(np.median(recent)) * (epochs - now[0]["epoch"])

    def mean(name: str) -> float:
        return float(np.mean([record[name] for record in now]))

    print(
        f"epoch {now[0]['epoch']}/{epochs}  loss {mean('train_loss'):.4f}  "
        f"train {mean('train_accuracy'):.2%}  validation {mean('validation_accuracy'):.2%} "
        f"(kept {np.mean(best):.2%}"
        + (f" at {best_epoch[0]})" if count == 1 else f")  mean of {count} runs")
        + f"  {images / now[0]['seconds']:,.0f} images/s  {left // 60:.0f}:{left % 60:02.0f} left",
        flush=True,
    )


@contextmanager
def _disk_errors(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write metrics to {workdir}: {error}; free some disk space and run the command "
            "again to resume from the newest whole checkpoint"
        ) from error
