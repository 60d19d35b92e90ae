"""Epochs over images that are held on the devices; each epoch is one program."""

from collections.abc import Iterator
from typing import Any

import jax
import optax

from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.epoch import TrainState, for_each_run, make_epoch


class EpochsInMemory:
    """Trains epochs of R runs on images that are held on the devices.

    Args:
      model: a model with the structure of all runs.
      optimizer: the optimizer.
      experiment: its recipe and augmentation are used.
      own: training examples int32 [R, A] of each run, and their counts [R]; on the devices.
      shared: images, labels and soft labels (or None) of all examples; on the devices.
      mesh: the devices of all processes.
    """

    def __init__(
        self,
        model: DeepEmotion,
        optimizer: optax.GradientTransformation,
        experiment: Experiment,
        own: tuple[Any, ...],
        shared: tuple[Any, ...],
        mesh: jax.sharding.Mesh,
    ):
        self._own, self._shared = own, shared
        epoch = make_epoch(model, optimizer, experiment.recipe, experiment.augmentation, mesh)
        epoch_of_runs = for_each_run(epoch)
        # Only the state is donated. If an epoch has one step, the indices have the size of a
        # result, and XLA would overwrite them, although the next epoch reads them.
        self._train: Any = jax.jit(
            lambda state, own, shared: epoch_of_runs((state, *own), shared),
            donate_argnums=0,
            out_shardings=jax.NamedSharding(mesh, jax.P()),
        )

    def compile(self, state: TrainState, keys: jax.Array) -> None:
        """Compiles the program ahead of the first epoch."""
        self._train = self._train.lower(state, (keys, *self._own), self._shared).compile()

    def run(
        self, state: TrainState, keys: jax.Array, first: int = 0
    ) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
        """Trains one epoch and yields it as one part; see `streaming.StreamedEpochs.run`."""
        assert first == 0
        yield self._train(state, (keys, *self._own), self._shared)
