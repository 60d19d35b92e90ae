"""Gradients against finite differences, extreme inputs, and training against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn.logits import assemble, make_logits, split_model
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training.config import Augmentation, Recipe
from deep_emotion_jax.training.epoch import (
    init_state,
    make_epoch,
    smoothed_cross_entropy,
)
from deep_emotion_jax.training.optimizer import make_optimizer

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 48, 48, 1)).astype(np.uint8)
LABELS = np.arange(6) % 7


def away_from_kinks(**settings):
    """A network whose grid avoids the kinks of bilinear sampling, unlike the identity."""
    model = DeepEmotion(dropout=0.0, **settings, rngs=nnx.Rngs(1))
    if model.localization is not None:
        theta = jnp.array([0.93, 0.05, 0.02, -0.04, 0.91, 0.03], jnp.float32)
        model.localization.theta.bias[...] = theta
        kernel = model.localization.theta.kernel
        noise = 0.01 * jax.random.normal(jax.random.key(2), kernel.shape)
        kernel[...] = noise.astype(jnp.float32)
    return model


def loss_of(model, stats, images, labels=LABELS):
    def loss(params):
        logits = assemble(model, params, stats)(images, train=True)
        return smoothed_cross_entropy(logits, labels, 0.1).mean()

    return loss


@pytest.mark.parametrize(
    "settings",
    [{}, {"attention": "image", "batch_norm": True, "localization": "port"}],
    ids=["figure", "image, port, BatchNorm"],
)
def test_gradients_of_the_whole_model_against_finite_differences(settings):
    with jax.enable_x64(True):
        model = away_from_kinks(**settings)
        params, stats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), split_model(model))
        images = jnp.asarray(IMAGES, jnp.float64) / 255
        # One program for both: compiling takes most of the time.
        loss_and_grads = jax.jit(jax.value_and_grad(loss_of(model, stats, images)))
        _, grads = loss_and_grads(params)
        leaves, tree = jax.tree.flatten(params)
        paths = [path for path, _ in jax.tree.leaves_with_path(params)]
        for i, path in enumerate(paths):
            direction = RNG.normal(size=leaves[i].shape)
            # Small enough that no grid point crosses a pixel, where the slope jumps.
            step = 3e-8 / max(1.0, np.linalg.norm(direction))

            def at(distance, i=i, direction=direction):
                moved = [*leaves]
                moved[i] = leaves[i] + distance * direction
                return float(loss_and_grads(jax.tree.unflatten(tree, moved))[0])

            measured = (at(step) - at(-step)) / (2 * step)
            stated = float(np.sum(direction * np.asarray(jax.tree.leaves(grads)[i])))
            assert stated == pytest.approx(measured, rel=1e-4, abs=1e-6), path
        assert jax.tree.leaves(grads)[0].dtype == jnp.float64


def checkerboard():
    return np.indices((48, 48)).sum(0) % 2 * 1.0


def test_loss_and_gradients_are_finite_for_extreme_inputs():
    spot = np.zeros((48, 48))
    spot[20, 30] = 1
    faces = [np.zeros((48, 48)), np.ones((48, 48)), checkerboard(), spot, spot * 1e-30, 1 - spot]
    images = jnp.asarray(np.stack(faces)[..., None], jnp.float32)
    model = away_from_kinks()
    params, stats = split_model(model)
    value_and_grad = jax.jit(jax.value_and_grad(loss_of(model, stats, images)))

    def changed(path, change):
        return jax.tree.map_with_path(
            lambda where, leaf: change(leaf) if jax.tree_util.keystr(where) in path else leaf,
            params,
        )

    theta = "['localization']['theta']['bias']"
    first = "['stages'][0]['convs'][0]['bias']"
    hidden = "['fc1']['bias']"
    logits = "['fc2']['bias']"
    cases = {
        "unchanged": params,
        "theta huge": changed([theta], lambda leaf: leaf * 1e30),
        "theta zero": changed([theta], lambda leaf: leaf * 0),
        "theta far outside": changed([theta], lambda leaf: leaf + 1e6),
        "dead first layer": changed([first], lambda leaf: leaf - 1e6),
        "dead hidden layer": changed([hidden], lambda leaf: leaf - 1e6),
        "logits far apart": changed([logits], lambda leaf: leaf + 1e30 * jnp.arange(7.0)),
        "all weights zero": jax.tree.map(jnp.zeros_like, params),
    }
    for name, weights in cases.items():
        same = jax.tree.map(lambda a, b: bool((a == b).all()), weights, params)
        assert all(jax.tree.leaves(same)) == (name == "unchanged")
        value, grads = value_and_grad(weights)
        assert math.isfinite(value), name
        for leaf in jax.tree.leaves(grads):
            assert np.isfinite(leaf).all(), name


def one_step_epochs(recipe, epochs):
    """States before and after each of several epochs of a single step, and their losses."""
    model = away_from_kinks()
    optimizer, _ = make_optimizer(recipe, num_epochs=5, steps=1)
    mesh = jax.make_mesh(
        (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    epoch = jax.jit(make_epoch(model, optimizer, recipe, Augmentation(flip=False), mesh))
    states, losses = [init_state(model, optimizer)], []
    for key in jax.random.split(jax.random.key(4), epochs):
        state, sums = epoch(
            states[-1], key, jnp.arange(6), 6, jnp.asarray(IMAGES), jnp.asarray(LABELS)
        )
        states.append(state)
        losses.append(float(sums["loss"][0]))
    return model, states, losses


@pytest.fixture(scope="module")
def few_steps():
    return one_step_epochs(
        Recipe(6, 1e-2, schedule="constant", fc_l2=0.01, ema_decay=0.2), epochs=4
    )


def test_moving_average_in_numpy(few_steps):
    _, states, _ = few_steps
    average = jax.tree.map(np.asarray, states[0].params)
    for step, state in enumerate(states[1:]):
        decay = min(0.2, (step + 1) / (step + 10))  # crosses over after two steps
        average = jax.tree.map(
            lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new),
            average,
            state.params,
        )
        for mine, theirs in zip(jax.tree.leaves(average), jax.tree.leaves(state.ema), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_l2_term_in_numpy(few_steps):
    model, states, losses = few_steps
    program = jax.jit(make_logits(model))
    for state, loss in zip(states, losses, strict=False):
        logits = np.asarray(program(state.params, state.stats, IMAGES), np.float64)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        squares = sum(
            np.sum(np.asarray(state.params[fc]["kernel"], np.float64) ** 2) for fc in ("fc1", "fc2")
        )
        expected = -log_p[np.arange(6), LABELS].mean() + 0.01 * squares
        assert loss == pytest.approx(expected, rel=1e-5)
        assert 0.01 * squares > 0.1 * loss  # the term is large enough to matter


@pytest.mark.parametrize("warmup", [0.0, 0.4, 2.0])
def test_schedule_in_numpy_at_every_step(warmup):
    steps, epochs, peak = 5, 6, 0.03
    _, rate = make_optimizer(Recipe(8, peak, warmup_steps=round(warmup * steps)), epochs, steps)
    rise, length = round(warmup * steps), epochs * steps
    for step in range(length + 1):
        if step < rise:
            expected = peak * step / rise
        else:
            expected = peak * (1 + np.cos(np.pi * (step - rise) / (length - rise))) / 2
        assert float(rate(step)) == pytest.approx(expected, abs=1e-8)
