"""Loss, training step and the compiled epoch.

A whole epoch is one program: shuffling, augmentation, steps and the weight average run in
`lax.scan` over images that stay on the device as bytes. Everything goes in and comes out as plain
pytrees, so the program can be jitted, sharded or vmapped over models.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from jax.sharding import PartitionSpec as P

from deep_emotion_jax.data.split import batch_indices, steps_per_epoch
from deep_emotion_jax.nn.backend import micro_batch_size, platform
from deep_emotion_jax.nn.logits import assemble, split_model
from deep_emotion_jax.training.augment import augment
from deep_emotion_jax.training.config import Augmentation, Recipe

Pytree = Any


class TrainState(NamedTuple):
    """All that training carries from one step to the next, a plain pytree.

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


def make_optimizer(
    recipe: Recipe, num_epochs: int, steps: int
) -> tuple[optax.GradientTransformation, Callable]:
    """Returns the optimizer and the learning rate as a function of the step.

    Args:
      recipe: the settings.
      num_epochs: length of the schedule.
      steps: steps per epoch.

    Raises:
      ValueError: for an unknown schedule or optimizer.
    """
    if recipe.schedule == "constant":
        rate: Callable = optax.constant_schedule(recipe.learning_rate)
    elif recipe.schedule == "cosine":
        length = num_epochs * steps
        rate = optax.warmup_cosine_decay_schedule(
            0.0,
            recipe.learning_rate,
            warmup_steps=min(recipe.warmup_steps, length // 2),
            decay_steps=length,
        )
    else:
        raise ValueError(f"schedule must be 'constant' or 'cosine', got {recipe.schedule!r}")
    if recipe.optimizer == "adam":
        return optax.adamw(rate, weight_decay=recipe.weight_decay, mask=_kernels), rate
    if recipe.optimizer == "muon":
        muon = optax.contrib.muon(
            rate,
            weight_decay=recipe.weight_decay,
            muon_weight_dimension_numbers=_as_matrices,
            consistent_rms=0.2,  # the usual size of Adam's steps, so that rates are comparable
        )
        return muon, rate
    raise ValueError(f"optimizer must be 'adam' or 'muon', got {recipe.optimizer!r}")


def _kernels(params: Pytree) -> Pytree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _as_matrices(params: Pytree) -> Pytree:
    """How Muon reads each kernel as a matrix: its last axis is the output."""
    return jax.tree.map(
        lambda leaf: (
            optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)
            if leaf.ndim > 1
            else None
        ),
        params,
    )


def init_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    params, stats = split_model(model)
    return TrainState(params, stats, optimizer.init(params), params, jnp.zeros((), jnp.int32))


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Cross-entropy [N] of logits [N, K] against labels [N] with label smoothing."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def make_epoch(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    augmentation: Augmentation,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The program of one epoch: (state, key, index, count, images, labels, soft) -> state, sums.

    It trains on images[index[:count]] (images uint8 [N, H, W, C], labels int32 [N], index int32
    [A]), so that folds of different sizes over one dataset are one program. `soft` are a teacher's
    probabilities [N, K], or None. Its second result holds per-step arrays [steps]: `loss` (with the
    L2 term), `correct`, `count`. The same key gives the same result, bit for bit, on one machine.
    """
    share = math.ceil(recipe.batch_size / mesh.size)
    micro = micro_batch_size(share)
    share = math.ceil(share / micro) * micro
    places = share * mesh.size

    def micro_loss(params, stats, key, images, labels, soft, weights):
        augment_key, dropout_key = jax.random.split(key)
        images = augment(augment_key, images.astype(jnp.float32) / 255, augmentation)
        net = assemble(model, params, stats)
        logits = net(images, train=True, dropout_key=dropout_key)
        losses = smoothed_cross_entropy(logits, labels, recipe.label_smoothing)
        if soft is not None:
            taught = optax.softmax_cross_entropy(logits, soft)
            losses = optax.incremental_update(taught, losses, recipe.teacher_share)
        loss = jnp.sum(weights * losses)
        correct = jnp.sum(weights * (logits.argmax(-1) == labels))
        return loss, (split_model(net)[1], correct)

    def l2(params):
        return recipe.fc_l2 * sum(jnp.sum(params[fc]["kernel"] ** 2) for fc in ("fc1", "fc2"))

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), *5 * (P("data"),)),
        out_specs=P(),
        check_vma=False,
    )
    def batch_grads(params, stats, keys, images, labels, soft, weights):
        """Sums over the batch; each device takes its share a micro-batch at a time."""

        def accumulate(carry, part):
            grads, stats, loss, correct = carry
            (part_loss, (stats, part_correct)), part_grads = jax.value_and_grad(
                micro_loss, has_aux=True
            )(params, stats, *part)
            grads = jax.tree.map(jnp.add, grads, part_grads)
            return (grads, stats, loss + part_loss, correct + part_correct), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(share // micro, micro, *leaf.shape[1:]),
            (images, labels, soft, weights),
        )
        (grads, stats, loss, correct), _ = jax.lax.scan(
            accumulate, (zeros, stats, 0.0, 0.0), (keys, *parts)
        )
        return (*jax.lax.psum((grads, loss, correct), "data"), jax.lax.pmean(stats, "data"))

    def step(state: TrainState, batch):
        key, images, labels, soft, weights = batch
        count = weights.sum()
        keys = jax.random.split(key, places // micro)
        grads, loss, correct, stats = batch_grads(
            state.params, state.stats, keys, images, labels, soft, weights
        )
        penalty, penalty_grads = jax.value_and_grad(l2)(state.params)
        grads = jax.tree.map(lambda g, p: g / count + p, grads, penalty_grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The average starts as a plain mean, so that it forgets the random initial weights.
        decay = jnp.minimum(recipe.ema_decay, (state.step + 1.0) / (state.step + 10.0))
        ema = optax.incremental_update(params, state.ema, 1 - decay)
        state = TrainState(params, stats, opt_state, ema, state.step + 1)
        return state, {"loss": loss / count + penalty, "correct": correct, "count": count}

    def epoch(state, key, index, count, images, labels, soft=None):
        order_key, step_key = jax.random.split(key)
        steps = steps_per_epoch(len(index), recipe.batch_size)
        order, weights = batch_indices(order_key, count, len(index), steps, places)

        def indexed_step(state, batch):
            key, chosen, weight = batch
            taught = None if soft is None else soft[chosen]
            return step(state, (key, images[chosen], labels[chosen], taught, weight))

        keys = jax.random.split(step_key, steps)
        return jax.lax.scan(indexed_step, state, (keys, index[order], weights))

    return epoch


def for_each_run(program: Callable) -> Callable:
    """The program for several runs at once: `program(*own, *shared)` for each of them.

    Measured rule: on a CPU one run after another keeps the caches, elsewhere `vmap` fills the
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
