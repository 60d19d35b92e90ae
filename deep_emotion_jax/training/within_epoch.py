"""Trains an epoch in parts; a streamed training can be saved and stopped between them."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from deep_emotion_jax.training.epoch import TrainState
from deep_emotion_jax.training.validation import RunState

Sums = dict[str, Any]
"""Per-step values [R, S] of all runs: `loss`, `correct` and `count`."""
Parts = Iterator[tuple[TrainState, Sums]]
"""The state after each part of an epoch, and the sums of its steps."""


class Begun(NamedTuple):
    """The progress of an epoch.

    Attributes:
      steps: number of steps done.
      sums: sums [R, steps of the epoch]; zero for steps not done.
      seconds: duration of the steps done.
    """

    steps: int
    sums: Sums
    seconds: float


Between = Callable[[RunState, Callable[[], Begun]], None]
"""Called between two parts with the state and a function that returns the progress."""


def train_parts(
    run: Callable[[int], Parts],
    state: RunState,
    steps: int,
    begun: Begun | None,
    wait: Callable[[Sums], None],
    between: Between | None,
) -> tuple[RunState, list[Sums]]:
    """Trains the remaining steps of an epoch.

    Args:
      run: trains the epoch from the given step on, part by part.
      state: the state of the runs before the remaining steps.
      steps: number of steps in the epoch.
      begun: the steps already done, or None.
      wait: waits for the sums of a part; limits how many parts are queued on the devices.
      between: may save a checkpoint or raise `Stopped`.

    Returns:
      The state after the epoch, and the sums of each part; the arrays may not be ready.
    """
    began, done = time.perf_counter(), begun.steps if begun else 0
    parts = [{name: sums[:, :done] for name, sums in begun.sums.items()}] if begun else []

    def so_far() -> Begun:
        rest = ((0, 0), (0, steps - done))
        sums = {name: np.pad(values, rest) for name, values in joined(parts).items()}
        return Begun(done, sums, time.perf_counter() - began + (begun.seconds if begun else 0))

    newest = None
    for train, sums in run(done):
        state = state._replace(train=train)
        parts.append(sums)
        done += sums["loss"].shape[1]
        if done < steps:
            if newest is not None:
                wait(newest)
            if between:
                between(state, so_far)
        newest = sums
    return state, parts


def joined(parts: Sequence[Sums]) -> dict[str, np.ndarray]:
    """Concatenates the sums of consecutive parts as NumPy arrays."""
    found = jax.device_get(list(parts))
    return {name: np.concatenate([part[name] for part in found], 1) for name in found[0]}
