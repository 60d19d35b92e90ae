"""Restarts dead runs from another seed; `selection.is_dead` defines dead."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.runtime.log import Record
from deep_emotion_jax.training.selection import MOST_RESTARTS, Score, is_dead, restart_seed
from deep_emotion_jax.training.validation import RunState


class DeadStarts:
    """Finds runs that learned nothing in their first epochs, and replaces them.

    Args:
      runs: all R runs.
      labels: int [N], the labels of all examples.
      smoothing: label smoothing of the recipe.
      window: number of last epochs over which loss and accuracy are averaged.
    """

    def __init__(self, runs: Sequence[Run], labels: np.ndarray, smoothing: float, window: int):
        self._runs, self._smoothing, self._window = runs, smoothing, window
        self._labels = [labels[run.fold.train] for run in runs]
        self._classes = int(labels.max()) + 1

    def replace(
        self,
        state: RunState,
        records: Sequence[Record],
        train_start: Callable[[np.ndarray], tuple[RunState, Sequence[Record]]],
    ) -> RunState:
        """Returns the state with every dead run replaced by a restarted one.

        A restarted run is bitwise identical to a run that starts from its new seed.

        Args:
          state: the state after the first epochs.
          records: metrics of these epochs; each epoch has one record per run.
          train_start: trains the first epochs of all runs from new weights, given the number of
            restarts [R] of each run; returns the new state and records.
        """
        scores = self._scores(records)
        restarts = np.zeros(len(self._runs), np.int32)
        for attempt in range(1, MOST_RESTARTS + 1):
            dead = self._dead(scores)
            if not dead.any():
                break
            restarts[dead] = attempt
            for i in np.flatnonzero(dead).tolist():
                print(self._sentence(i, attempt), flush=True)
            again, new_records = train_start(restarts)
            state = _take(jnp.asarray(dead), again, state)
            scores = np.where(dead, self._scores(new_records), scores)
        return state

    def _scores(self, records: Sequence[Record]) -> np.ndarray:
        """Returns mean training accuracy and loss [2, R] over the last epochs."""
        count = len(self._runs)
        last = records[-self._window * count :]
        both = [[line[f"train_{name}"] for line in last] for name in Score._fields]
        return np.reshape(both, (2, -1, count)).mean(1)

    def _dead(self, scores: np.ndarray) -> np.ndarray:
        return np.array(
            [
                is_dead(Score(*score), labels, self._smoothing, self._classes)
                for score, labels in zip(scores.T, self._labels, strict=True)
            ]
        )

    def _sentence(self, i: int, attempt: int) -> str:
        run = self._runs[i]
        return (
            f"{run.name} has learned nothing: restarting it from seed "
            f"{restart_seed(run.seed, attempt)} (attempt {attempt} of {MOST_RESTARTS})"
        )


@jax.jit
def _take(which: jax.Array, new: RunState, old: RunState) -> RunState:
    """Returns the runs of `new` where `which` [R] is True, else those of `old`."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
