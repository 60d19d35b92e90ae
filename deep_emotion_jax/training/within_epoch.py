"""An epoch in parts, between which a streamed training can be saved and stopped."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from deep_emotion_jax.training.epoch import TrainState
from deep_emotion_jax.training.validation import RunState

Sums = dict[str, Any]
"""Per-step sums [R, S] of the steps of all runs: `loss`, `correct` and `count`."""
Parts = Iterator[tuple[TrainState, Sums]]
"""The state after each part of an epoch, and the sums of its steps."""


class Begun(NamedTuple):
    """An epoch of which some steps are done.

    Attributes:
      steps: how many.
      sums: of all steps of the epoch, zero for those to come.
      seconds: that they took.
    """

    steps: int
    sums: Sums
    seconds: float


Between = Callable[[RunState, Callable[[], Begun]], None]
"""Called between two parts with the state and a function that says what is done."""


def train_parts(
    run: Callable[[int], Parts],
    state: RunState,
    steps: int,
    begun: Begun | None,
    wait: Callable[[Sums], None],
    between: Between | None,
) -> tuple[RunState, list[Sums]]:
    """Trains the steps of an epoch that are not done.

    Args:
      run: trains the parts of the epoch from this step on.
      state: of the runs before these parts.
      steps: of the whole epoch.
      begun: what is done of it.
      wait: waits for the sums of a part; called so that few parts wait on the devices.
      between: may save what is done, or raise `Stopped`.

    Returns:
      The state after the epoch, and the sums of its steps in parts; they may not be ready.
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
    """The sums of consecutive steps as NumPy arrays."""
    found = jax.device_get(list(parts))
    return {name: np.concatenate([part[name] for part in found], 1) for name in found[0]}
