"""Epochs over images that do not fit on the devices: Grain reads ahead during the steps.

Order of the images, random keys and steps are those of an epoch in memory. Each process reads only
the part of every batch that its own devices train on.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
import optax

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.batching import steps_per_epoch
from deep_emotion_jax.training.config import Experiment
from deep_emotion_jax.training.epoch import (
    TrainState,
    for_each_run,
    make_streamed_epoch,
    plan_epoch,
)

CHUNK_BYTES = 8 << 20  # size of the images that are sent to the devices at once
CHUNKS_READ = 8  # chunks that are read in parallel, each by a thread


class Batches(NamedTuple):
    """The batches of S steps of all R runs, as far as one process holds them.

    Attributes:
      images: uint8 [R, S, places, H, W, C].
      labels: int32 [R, S, places].
      soft: float32 [R, S, places, K], or None.
      weights: float32 [R, S, places].
    """

    images: Any
    labels: Any
    soft: Any
    weights: Any


class Steps:
    """A Grain source that maps a step of one epoch to its `Batches`, without the axis S.

    Args:
      data: the examples.
      chosen: int32 [R, steps, places], the examples of each step.
      weights: float32 of the same shape.
    """

    def __init__(self, data: Split, chosen: np.ndarray, weights: np.ndarray):
        self._data, self._chosen, self._weights = data, chosen, weights

    def __len__(self) -> int:
        return self._chosen.shape[1]

    def __getitem__(self, step: int) -> Batches:
        rows = self._chosen[:, step]
        soft = self._data.soft_labels
        return Batches(
            self._data.images[rows],
            self._data.labels[rows],
            None if soft is None else soft[rows],
            self._weights[:, step],
        )


def read_ahead(steps: Steps, first: int, steps_in_chunk: int) -> Iterator[Batches]:
    """Yields the steps from `first` on in chunks, which threads read in advance."""

    def stack(batches: Any) -> Batches:
        return jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *batches)

    dataset = grain.MapDataset.source(steps)[first:].batch(steps_in_chunk, batch_fn=stack)
    # Threads, not processes: they read 140,000 images a second per core without copying pixels
    # between processes.
    options = grain.ReadOptions(num_threads=CHUNKS_READ, prefetch_buffer_size=CHUNKS_READ)
    return iter(dataset.to_iter_dataset(options))


class StreamedEpochs:
    """Trains epochs of R runs on images that are read during training.

    Args:
      model: a model with the structure of all runs.
      optimizer: the optimizer.
      experiment: its recipe and augmentation are used.
      data: the examples; the images may be `StoredRows`.
      index: int32 [R, A], the training examples of each run, padded beyond `counts`.
      counts: int32 [R], number of training examples of each run.
      mesh: the devices of all processes.
    """

    def __init__(
        self,
        model: DeepEmotion,
        optimizer: optax.GradientTransformation,
        experiment: Experiment,
        data: Split,
        index: np.ndarray,
        counts: np.ndarray,
        mesh: jax.sharding.Mesh,
    ):
        self._data, self._index, self._counts = data, index, counts
        recipe = experiment.recipe
        some_steps, self._places = make_streamed_epoch(
            model, optimizer, recipe, experiment.augmentation, mesh
        )
        self._steps = steps_per_epoch(index.shape[1], recipe.batch_size)
        step_bytes = len(index) * self._places * int(np.prod(data.images.shape[1:]))
        self._steps_in_chunk = min(self._steps, max(1, CHUNK_BYTES // step_bytes))
        everywhere = jax.NamedSharding(mesh, jax.P())
        self._dealt_out = jax.NamedSharding(mesh, jax.P(None, None, "data"))

        def plan(key, count):
            keys, order, weights = plan_epoch(
                key, count, index.shape[1], recipe.batch_size, self._places
            )
            return jax.random.key_data(keys), order, weights

        def train(state, keys, batches):
            own = (state, jax.random.wrap_key_data(keys), *batches)
            return for_each_run(some_steps)(own, ())

        self._plan = jax.jit(jax.vmap(plan), out_shardings=everywhere)
        self._train: Any = jax.jit(train, donate_argnums=0, out_shardings=everywhere)
        self._compiled: dict[int, Any] = {}

    def compile(self, state: TrainState, keys: jax.Array) -> None:
        """Compiles the programs for a whole chunk and for a shorter last one."""
        key_data, *_ = jax.eval_shape(self._plan, keys, self._counts)
        chosen = np.zeros((len(keys), 1, 1), np.int32)
        example = Steps(self._data, chosen, chosen.astype(np.float32))[0]

        def described(leaf: np.ndarray, length: int) -> jax.ShapeDtypeStruct:
            shape = (len(leaf), length, self._places, *leaf.shape[2:])
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=self._dealt_out)

        for length in {self._steps_in_chunk, self._steps % self._steps_in_chunk} - {0}:
            batches = jax.tree.map(partial(described, length=length), example)
            some_keys = np.zeros((len(keys), length, *key_data.shape[2:]), key_data.dtype)
            self._compiled[length] = self._train.lower(state, some_keys, batches).compile()

    def run(
        self, state: TrainState, keys: jax.Array, first: int = 0
    ) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
        """Trains one epoch, starting at a step.

        Args:
          state: the state before the step; its arrays are donated.
          keys: [R], the runs' keys for the epoch.
          first: number of the step, from 0.

        Yields:
          After each chunk of S steps, the state, which is donated to the next chunk, and the sums
          [R, S] of the chunk.
        """
        key_data, order, weights = map(np.asarray, self._plan(keys, self._counts))
        own = self._own_places()
        rows = zip(self._index, order[..., own], strict=True)
        chosen = np.stack([index[places] for index, places in rows])
        steps = Steps(self._data, chosen, weights[..., own])
        del order, weights
        for batches in read_ahead(steps, first, self._steps_in_chunk):
            length = batches.labels.shape[1]
            train = self._compiled.get(length, self._train)
            state, sums = train(state, key_data[:, first : first + length], self._send(batches))
            first += length
            yield state, sums

    def _own_places(self) -> np.ndarray:
        """Returns the places of a batch that this process's devices train on."""
        shape = (1, 1, self._places)
        shards = self._dealt_out.addressable_devices_indices_map(shape).values()
        slices = {shard[2].indices(self._places) for shard in shards if shard}
        return np.concatenate([np.arange(*bounds) for bounds in sorted(slices)])

    def _send(self, batches: Batches) -> Batches:
        def send(own: np.ndarray) -> jax.Array:
            shape = (*own.shape[:2], self._places, *own.shape[3:])
            return jax.make_array_from_process_local_data(self._dealt_out, own, shape)

        return jax.tree.map(send, batches)
