"""Loss, training step and the compiled epoch.

A whole epoch is one program: shuffling, augmentation, steps and the weight average run in
`lax.scan` over uint8 images that stay on the device. Images that do not fit there are trained on in
chunks of steps by the same scan (`make_streamed_epoch`). Inputs and outputs are plain pytrees, so
the programs can be jitted, sharded or vmapped over models.
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
    """The state that training carries from one step to the next, a plain pytree.

    Attributes:
      params: weights.
      stats: every other state of the model (BatchNorm statistics), may be empty.
      opt_state: the optimizer's moments and the schedule's count.
      ema: moving average of the weights, or the weights themselves without one.
      step: int32, steps taken.
    """

    params: Pytree
    stats: Pytree
    opt_state: Pytree
    ema: Pytree
    step: jax.Array


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    params, stats = split_model(model)
    return TrainState(params, stats, optimizer.init(params), params, jnp.zeros((), jnp.int32))


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Cross-entropy [N] of logits [N, K] against labels [N] with label smoothing."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_epoch(
    model: DeepEmotion,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    augmentation: Augmentation,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The program of one epoch: (state, key, index, count, images, labels, soft) -> state, sums.

    It trains on images[index[:count]] (images uint8 [N, H, W, C], labels int32 [N], index int32
    [A]), so that folds of different sizes over one dataset are one program. `soft` holds a
    teacher's probabilities [N, K], or is None. Its second result holds arrays [steps]: `loss` (with
    the L2 term), `correct`, `count`. The same key gives the same bits on one machine.
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
    """The program of some steps of an epoch, for images that are not all on the device.

    Chunk after chunk of the steps that `plan_epoch` orders, it trains as `make_epoch` does.

    Returns:
      (state, keys [S], images, labels, soft, weights) -> state, sums of these S steps, where the
      arrays are those of `make_epoch` for each of `places` examples: images uint8 [S, places, H, W,
      C], labels int32 [S, places], soft [S, places, K] or None, weights [S, places]; and `places`.
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
    """The keys [steps] of an epoch's steps, and its batches with their weights.

    Args:
      key: of the epoch.
      count: number of examples; may be traced.
      size: the largest count there may be, which gives the number of steps.
      batch_size: of the recipe.
      places: in a batch on the devices, at least `batch_size`.

    Returns:
      keys, and indices and weights [steps, places] as of `batch_indices`.
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
    """One training step, see `_make_step`, and the places in a batch on all devices."""
    share = math.ceil(recipe.batch_size / mesh.size)
    micro = micro_batch_size(share)
    share = math.ceil(share / micro) * micro
    places = share * mesh.size
    gradients = _make_gradients(_make_loss(model, recipe, augmentation), mesh, micro)
    return _make_step(gradients, optimizer, recipe, places // micro), places


def _make_loss(model: DeepEmotion, recipe: Recipe, augmentation: Augmentation) -> Callable:
    """The loss of a micro-batch: its weighted sum, new statistics and the number correct."""

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
    """Sums of gradients, loss and correct over a batch, and the mean of the new statistics.

    Each device takes its share of the batch, a micro-batch of `micro` images at a time.
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
    """One step: (state, key, batch) -> state and sums; `parts` micro-batches need a key each."""

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
        # The average starts as a plain mean, so that it forgets the random initial weights.
        decay = jnp.minimum(recipe.ema_decay, (state.step + 1.0) / (state.step + 10.0))
        ema = optax.incremental_update(params, state.ema, 1 - decay)
        state = TrainState(params, stats, opt_state, ema, state.step + 1)
        return state, {"loss": loss / count + penalty, "correct": correct, "count": count}

    return step


def for_each_run(program: Callable) -> Callable:
    """The program for several runs at once: `program(*own, *shared)` for each of them.

    Measured: on a CPU one run after another keeps the caches warm, elsewhere `vmap` fills the
    device. Either way it is one compiled program.

    Returns:
      A function of (own, shared), two tuples; every array of `own` has a leading axis of runs.
    """

    def runs(own, shared):
        if platform() == "cpu":
            return jax.lax.map(lambda mine: program(*mine, *shared), own)
        return jax.vmap(lambda mine: program(*mine, *shared))(own)

    return runs


def first_bad_step(loss: np.ndarray) -> tuple[int, int] | None:
    """Run and step of the first loss in [runs, steps] that is not finite, or None."""
    bad = np.argwhere(~np.isfinite(loss))
    return tuple(bad[bad[:, 1].argmin()].tolist()) if bad.size else None
