"""Loss, training step and the compiled epoch.

An epoch is one compiled program: shuffling, augmentation, training steps and weight averaging run
in `lax.scan` over uint8 images that stay on the device. If the images do not fit there,
`make_streamed_epoch` runs the same scan over chunks of steps. Inputs and outputs are plain pytrees,
so the programs can be jitted, sharded or vmapped over models.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from deep_emotion_jax.nn.backend import micro_batch_size, platform
from deep_emotion_jax.nn.logits import assemble, split_model
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.augment import augment, mix
from deep_emotion_jax.training.batching import batch_indices, steps_per_epoch
from deep_emotion_jax.training.config import Augmentation, Recipe

Pytree = Any


class TrainState(NamedTuple):
    """The training state of one model, a plain pytree.

    Attributes:
      params: weights.
      stats: the rest of the model's state (BatchNorm statistics); may be empty.
      opt_state: the optimizer's moments and the schedule's count.
      ema: moving average of the weights; equals `params` for ema_decay 0.
      step: int32, number of steps taken.
    """

    params: Pytree
    stats: Pytree
    opt_state: Pytree
    ema: Pytree
    step: jax.Array


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    params, stats = split_model(model)
    return TrainState(params, stats, optimizer.init(params), params, jnp.zeros((), jnp.int32))


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Returns the cross-entropy [N] of logits [N, K] and labels [N] with label smoothing."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_epoch(
    model: DeepEmotion,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    augmentation: Augmentation,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the program that trains one epoch.

    Returns:
      (state, key, index, count, images, labels, soft) -> state, sums. It trains on
      images[index[:count]] (images uint8 [N, H, W, C], labels int32 [N], index int32 [A]), so folds
      of different sizes share one program. `soft` holds a teacher's probabilities [N, K], or is
      None. `sums` holds arrays [steps]: `loss` (with the L2 term), `correct` and `count`. The same
      key gives bitwise identical results on one machine.
    """
    step, places = _make_parts(model, optimizer, recipe, augmentation, mesh)

    def epoch(state, key, index, count, images, labels, soft=None):
        keys, order, weights = plan_epoch(key, count, len(index), recipe.batch_size, places)

        def indexed_step(state, batch):
            key, chosen, weight = batch
            taught = None if soft is None else soft[chosen]
            return step(state, key, (images[chosen], labels[chosen], taught, weight))

        return jax.lax.scan(indexed_step, state, (keys, index[order], weights))

    return epoch


def make_streamed_epoch(
    model: DeepEmotion,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    augmentation: Augmentation,
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[..., tuple[TrainState, dict[str, jax.Array]]], int]:
    """Makes the program that trains a chunk of S steps of an epoch.

    Run over all chunks of `plan_epoch` in order, it gives the result of `make_epoch`.

    Returns:
      (state, keys [S], images, labels, soft, weights) -> state, sums [S], for images uint8
      [S, places, H, W, C], labels int32 [S, places], soft [S, places, K] or None, and weights
      [S, places]; and `places`, the size of a batch on all devices.
    """
    step, places = _make_parts(model, optimizer, recipe, augmentation, mesh)

    def some_steps(state, keys, images, labels, soft, weights):
        def given_step(state, batch):
            return step(state, batch[0], batch[1:])

        return jax.lax.scan(given_step, state, (keys, images, labels, soft, weights))

    return some_steps, places


def plan_epoch(
    key: jax.Array, count: int | jax.Array, size: int, batch_size: int, places: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws the batches of an epoch and the random keys of its steps.

    Args:
      key: the epoch's key.
      count: number of examples; may be traced.
      size: upper bound of `count`; gives the number of steps.
      batch_size: as in the recipe.
      places: size of a batch on all devices, at least `batch_size`.

    Returns:
      keys [steps], and indices and weights [steps, places] from `batch_indices`.
    """
    order_key, step_key = jax.random.split(key)
    steps = steps_per_epoch(size, batch_size)
    order, weights = batch_indices(order_key, count, size, steps, places)
    return jax.random.split(step_key, steps), order, weights


def _make_parts(
    model: DeepEmotion,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    augmentation: Augmentation,
    mesh: jax.sharding.Mesh,
) -> tuple[Callable, int]:
    """Returns one training step (`_make_step`) and the size of a batch on all devices."""
    share = math.ceil(recipe.batch_size / mesh.size)
    micro = micro_batch_size(share)
    share = math.ceil(share / micro) * micro
    places = share * mesh.size
    gradients = _make_gradients(_make_loss(model, recipe, augmentation), mesh, micro)
    return _make_step(gradients, optimizer, recipe, places // micro), places


def _make_loss(model: DeepEmotion, recipe: Recipe, augmentation: Augmentation) -> Callable:
    """Makes the loss of a micro-batch: weighted sum, (new statistics, number correct)."""

    def loss(params, stats, key, images, labels, soft, weights):
        augment_key, dropout_key = jax.random.split(key)
        images = augment(augment_key, images.astype(jnp.float32) / 255, augmentation)
        targets = jax.nn.one_hot(labels, model.fc2.out_features)
        targets = optax.smooth_labels(targets, recipe.label_smoothing)
        if soft is not None:
            targets = recipe.teacher_share * soft + (1.0 - recipe.teacher_share) * targets
        if augmentation.mixup:
            mix_key = jax.random.fold_in(augment_key, 1)
            images, targets = mix(mix_key, images, targets, augmentation.mixup)
        net = assemble(model, params, stats)
        logits = net(images, train=True, dropout_key=dropout_key)
        losses = optax.softmax_cross_entropy(logits, targets)
        correct = jnp.sum(weights * (logits.argmax(-1) == labels))
        return jnp.sum(weights * losses), (split_model(net)[1], correct)

    return loss


def _make_gradients(loss: Callable, mesh: jax.sharding.Mesh, micro: int) -> Callable:
    """Makes a function that sums gradients, loss and correct predictions over a batch.

    It also returns the mean of the devices' new statistics. Each device processes its share of the
    batch in micro-batches of `micro` images.
    """

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), P("data"), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    def gradients(params, stats, keys, batch):
        def accumulate(carry, part):
            grads, stats, total, correct = carry
            (part_loss, (stats, part_correct)), part_grads = jax.value_and_grad(loss, has_aux=True)(
                params, stats, *part
            )
            grads = jax.tree.map(jnp.add, grads, part_grads)
            return (grads, stats, total + part_loss, correct + part_correct), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, micro, *leaf.shape[1:]), batch)
        (grads, stats, total, correct), _ = jax.lax.scan(
            accumulate, (zeros, stats, 0.0, 0.0), (keys, *parts)
        )
        return (*jax.lax.psum((grads, total, correct), "data"), jax.lax.pmean(stats, "data"))

    return gradients


def _make_step(
    gradients: Callable, optimizer: optax.GradientTransformation, recipe: Recipe, parts: int
) -> Callable:
    """Makes one training step (state, key, batch) -> state, sums, for `parts` micro-batches."""

    def l2(params):
        return recipe.fc_l2 * sum(jnp.sum(params[fc]["kernel"] ** 2) for fc in ("fc1", "fc2"))

    def step(state: TrainState, key, batch):
        count = batch[-1].sum()
        keys = jax.random.split(key, parts)
        grads, loss, correct, stats = gradients(state.params, state.stats, keys, batch)
        penalty, penalty_grads = jax.value_and_grad(l2)(state.params)
        grads = jax.tree.map(lambda g, p: g / count + p, grads, penalty_grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The decay grows from 0.1, so that the average forgets the random initial weights.
        decay = jnp.minimum(recipe.ema_decay, (state.step + 1.0) / (state.step + 10.0))
        ema = optax.incremental_update(params, state.ema, 1 - decay)
        state = TrainState(params, stats, opt_state, ema, state.step + 1)
        return state, {"loss": loss / count + penalty, "correct": correct, "count": count}

    return step


def for_each_run(program: Callable) -> Callable:
    """Maps a program over runs: `program(*own, *shared)` for each run.

    As measured, running them one after another is fastest on a CPU, `vmap` on other devices.

    Returns:
      A function of (own, shared), two tuples; the arrays of `own` have a leading axis of runs.
    """

    def runs(own, shared):
        if platform() == "cpu":
            return jax.lax.map(lambda mine: program(*mine, *shared), own)
        return jax.vmap(lambda mine: program(*mine, *shared))(own)

    return runs


def first_bad_step(loss: np.ndarray) -> tuple[int, int] | None:
    """Returns run and step of the earliest non-finite loss in [runs, steps], or None."""
    bad = np.argwhere(~np.isfinite(loss))
    return tuple(bad[bad[:, 1].argmin()].tolist()) if bad.size else None
