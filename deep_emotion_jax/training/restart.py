"""Restarts runs whose start has failed, from another seed; see `selection` for what has failed."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.runtime.log import Record
from deep_emotion_jax.training.selection import MOST_RESTARTS, Score, is_dead, restart_seed
from deep_emotion_jax.training.validation import RunState


class DeadStarts:
    """Finds runs that have learned nothing in their first epochs, and replaces them.

    Args:
      runs: all runs.
      labels: int [N], of all examples.
      smoothing: label smoothing of the recipe.
      window: epochs over which loss and accuracy are averaged.
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
        """Returns the state after the start with every dead run replaced by a new one.

        A replaced run is, bit for bit, the run that its new seed gives.

        Args:
          state: after the epochs of the start.
          records: of these epochs, those of all runs of one epoch after another.
          train_start: trains the start of all runs from new weights, each with the seed of so many
            restarts [R]; returns what `state` and `records` are for it.
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
        """Mean accuracy and loss [2, R] on training images in the last epochs."""
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
            f"{run.name} has learned nothing yet: starting it anew from seed "
            f"{restart_seed(run.seed, attempt)} (attempt {attempt} of {MOST_RESTARTS})"
        )


@jax.jit
def _take(which: jax.Array, new: RunState, old: RunState) -> RunState:
    """The runs of `new` where `which` [R] is set, and those of `old` elsewhere."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
