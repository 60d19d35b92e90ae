"""The training programs against NumPy and against each other."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn.logits import assemble, make_logits
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.training import epoch as train_module
from deep_emotion_jax.training.config import Augmentation, Recipe
from deep_emotion_jax.training.epoch import (
    first_bad_step,
    for_each_run,
    init_state,
    make_epoch,
    smoothed_cross_entropy,
)
from deep_emotion_jax.training.optimizer import make_optimizer

RECIPE = Recipe(batch_size=8, learning_rate=1e-3, ema_decay=0)
UNCHANGED = Augmentation(flip=False)


def mesh(devices=1):
    return jax.make_mesh(
        (devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )


def data(count=24):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 48, 48, 1)).astype(np.uint8)
    return jnp.asarray(images), jnp.asarray(np.arange(count) % 7, jnp.int32)


def one_epoch(recipe, model=None, images=None, devices=1, augmentation=UNCHANGED):
    model = model or DeepEmotion(dropout=0.0, rngs=nnx.Rngs(0))
    images, labels = data() if images is None else images
    optimizer, _ = make_optimizer(recipe, 3, -(-len(labels) // recipe.batch_size))
    epoch = jax.jit(make_epoch(model, optimizer, recipe, augmentation, mesh(devices)))
    index = jnp.arange(len(labels))
    return epoch(init_state(model, optimizer), jax.random.key(1), index, len(index), images, labels)


def close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


def test_smoothed_cross_entropy_in_numpy():
    logits = np.random.default_rng(0).normal(size=(5, 7))
    labels = np.arange(5)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -0.9 * log_p[np.arange(5), labels] - 0.1 * log_p.mean(1)
    np.testing.assert_allclose(smoothed_cross_entropy(logits, labels, 0.1), expected, atol=1e-5)


def test_one_step_is_adam_on_the_mean_gradient_with_the_l2_term():
    recipe = replace(RECIPE, batch_size=24, schedule="constant", fc_l2=0.01, ema_decay=0.999)
    model = DeepEmotion(dropout=0.0, rngs=nnx.Rngs(0))
    # Away from the identity, at whose grid points bilinear sampling has kinks.
    model.localization.theta.bias[...] = jnp.array([0.93, 0.05, 0.02, -0.04, 0.91, 0.03])
    images, labels = data()
    state, sums = one_epoch(recipe, model)
    start = init_state(model, make_optimizer(recipe, 3, 1)[0])

    def loss(params):
        net = assemble(model, params, start.stats)
        ce = smoothed_cross_entropy(net(images.astype(jnp.float32) / 255), labels, 0.0).mean()
        fc = sum(jnp.sum(params[name]["kernel"] ** 2) for name in ("fc1", "fc2"))
        return ce + 0.01 * fc

    value, grads = jax.jit(jax.value_and_grad(loss))(start.params)
    np.testing.assert_allclose(sums["loss"][0], value, rtol=1e-5)
    assert sums["count"][0] == 24
    predicted = np.asarray(model(images.astype(jnp.float32) / 255)).argmax(1)
    assert sums["correct"][0] == (predicted == labels).sum()
    for new, old, g in zip(
        *(jax.tree.leaves(tree) for tree in (state.params, start.params, grads)), strict=True
    ):
        # Adam's first step is the learning rate times g / |g|; if the gradient is nearly zero, its
        # sign depends on rounding.
        clear = np.abs(g) > 1e-4
        np.testing.assert_allclose((new - old)[clear], -1e-3 * np.sign(g)[clear], atol=1e-5)
    # Step 0 of the average has decay min(0.999, 1 / 10).
    mixed = jax.tree.map(lambda new, old: 0.9 * new + 0.1 * old, state.params, start.params)
    close(state.ema, mixed, 1e-6)


def test_micro_batches_and_devices_do_not_change_the_result(monkeypatch):
    whole, _ = one_epoch(RECIPE)
    monkeypatch.setattr(train_module, "micro_batch_size", lambda batch: min(3, batch))
    parts, _ = one_epoch(RECIPE)
    close(whole.params, parts.params, 2e-4)
    shared, _ = one_epoch(RECIPE, devices=2)
    close(whole.params, shared.params, 2e-4)


def test_every_example_counts_once_when_batches_are_uneven():
    images, labels = data(21)
    _, sums = one_epoch(RECIPE, images=(images, labels))
    np.testing.assert_array_equal(np.sort(sums["count"]), [7, 7, 7])
    # Two devices cannot share nine images equally.
    _, sums = one_epoch(replace(RECIPE, batch_size=9), images=data(27), devices=2)
    np.testing.assert_array_equal(sums["count"], [9, 9, 9])


def test_augmentation_gets_images_from_0_to_1(monkeypatch):
    """The network standardises its input, so another scale shows in augmentation only."""
    images, labels = data()
    _, expected = one_epoch(RECIPE, images=(images.at[images == 255].set(0), labels))
    monkeypatch.setattr(
        train_module, "augment", lambda key, images, _: jnp.where(images == 1, 0, images)
    )
    _, sums = one_epoch(RECIPE, images=(images, labels))
    np.testing.assert_allclose(sums["loss"], expected["loss"], rtol=1e-4)


def test_ema_decay_zero_evaluates_the_weights_themselves():
    state, _ = one_epoch(RECIPE)
    close(state.ema, state.params, 0)


def test_the_same_key_gives_bitwise_identical_results():
    augmentation = Augmentation(flip=True, erase=0.3)
    model = DeepEmotion(dropout=0.3, rngs=nnx.Rngs(0))
    first, second = (one_epoch(RECIPE, model, augmentation=augmentation)[0] for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def fold_epochs(folds, seeds):
    """Trains an epoch of each fold from its seed, in one program and one by one."""
    images, labels = data()
    recipe = replace(RECIPE, warmup_steps=2)  # an epoch
    optimizer, _ = make_optimizer(recipe, 3, 2)
    models = [DeepEmotion(rngs=nnx.Rngs(seed)) for seed in seeds]
    starts = [init_state(model, optimizer) for model in models]
    own = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts),
        jax.vmap(jax.random.key)(np.array(seeds)),
        np.stack([np.resize(fold, 16) for fold in folds]),
        np.array([len(fold) for fold in folds]),
    )
    epoch = make_epoch(models[0], optimizer, recipe, UNCHANGED, mesh())
    together = jax.jit(for_each_run(epoch))(own, (images, labels))
    alone = jax.jit(epoch)
    return together, [
        alone(*jax.tree.map(lambda x, i=i: x[i], own), images, labels) for i in range(len(folds))
    ]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # one after another, side by side
def test_ten_folds_in_one_program_match_ten_separate_trainings(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    folds = [np.delete(np.arange(18), [i, i + 1, *range(i + 2, i + 2 + i % 3)]) for i in range(10)]
    (together, sums), alone = fold_epochs(folds, seeds=[i // 2 for i in range(10)])
    np.testing.assert_array_equal(sums["count"].sum(1), [len(fold) for fold in folds])
    for i, (state, own_sums) in enumerate(alone):
        close(jax.tree.map(lambda x, i=i: x[i], together.params), state.params, 2e-4)
        np.testing.assert_allclose(sums["loss"][i], own_sums["loss"], rtol=1e-4)
    # The same seed on other images gives other weights.
    assert (
        np.abs(alone[0][0].params["fc1"]["kernel"] - alone[1][0].params["fc1"]["kernel"]).max()
        > 1e-3
    )


def test_an_epoch_reads_only_the_images_of_its_fold():
    images, labels = data()
    poisoned = images.at[:4].set(0)
    fold = [np.arange(4, 24)]
    optimizer, _ = make_optimizer(RECIPE, 3, 3)
    model = DeepEmotion(rngs=nnx.Rngs(0))
    epoch = jax.jit(make_epoch(model, optimizer, RECIPE, UNCHANGED, mesh()))
    start = init_state(model, optimizer)
    a, b = (
        epoch(start, jax.random.key(1), np.resize(fold[0], 22), 20, faces, labels)[0]
        for faces in (images, poisoned)
    )
    close(a.params, b.params, 0)


def test_batch_norm_statistics_are_updated(monkeypatch):
    monkeypatch.setattr(train_module, "micro_batch_size", lambda batch: batch)
    model = DeepEmotion(batch_norm=True, rngs=nnx.Rngs(0))
    images, labels = data()
    state, _ = one_epoch(replace(RECIPE, batch_size=24), model, (images, labels))
    x = np.asarray(images, np.float32) / 255
    x = (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    layer = model.stages[0].convs[0]
    seen = np.lib.stride_tricks.sliding_window_view(x[..., 0], (3, 3), (1, 2))
    out = np.einsum("nhwij,ijc->nhwc", seen, layer.kernel[:, :, 0]) + layer.bias[...]
    found = state.stats["stages"][0]["norms"][0]
    np.testing.assert_allclose(found["mean"], 0.01 * out.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["var"], 0.99 + 0.01 * out.var((0, 1, 2)), atol=1e-4)


def test_make_logits_covers_every_image_once():
    model = DeepEmotion(dropout=0.9, rngs=nnx.Rngs(0))
    images, _ = data(21)
    state = init_state(model, make_optimizer(RECIPE, 3, 1)[0])
    logits = jax.jit(make_logits(model))(state.params, state.stats, images)
    np.testing.assert_allclose(logits, model(images.astype(jnp.float32) / 255), atol=1e-5)


def test_muon_takes_orthogonal_steps_of_adams_size():
    model = DeepEmotion(rngs=nnx.Rngs(0))
    recipe = replace(RECIPE, optimizer="muon", schedule="constant", learning_rate=1.0)
    optimizer, _ = make_optimizer(recipe, 3, 1)
    params = init_state(model, optimizer).params
    keys = iter(jax.random.split(jax.random.key(0), 40))
    grads = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), params)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    kernel = np.asarray(updates["stages"][1]["convs"][1]["kernel"]).reshape(90, 10)
    values = np.linalg.svd(kernel, compute_uv=False)
    assert values.max() / values.min() < 2  # Newton-Schulz is approximate
    np.testing.assert_allclose(np.sqrt(np.mean(kernel**2)), 0.2, rtol=0.2)
    # Adam's first step (Nesterov's form) on the rest: one size, against the gradient.
    bias = updates["fc1"]["bias"] / -np.sign(grads["fc1"]["bias"])
    assert bias[0] > 0
    np.testing.assert_allclose(bias, bias[0], rtol=1e-3)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="'rmsprop'"):
        make_optimizer(replace(RECIPE, optimizer="rmsprop"), 3, 1)


def test_schedules():
    _, rate = make_optimizer(Recipe(8, 0.1, warmup_steps=10), 10, steps=5)
    np.testing.assert_allclose([rate(0), rate(10), rate(50)], [0, 0.1, 0], atol=1e-7)
    np.testing.assert_allclose(rate(30), 0.05, atol=1e-6)
    _, rate = make_optimizer(Recipe(8, 0.1, schedule="constant"), 10, steps=5)
    assert rate(49) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="'linear'"):
        make_optimizer(Recipe(8, 0.1, schedule="linear"), 10, steps=5)


def test_first_bad_step():
    assert first_bad_step(np.ones((2, 3))) is None
    assert first_bad_step(np.array([[1, 1, np.nan], [1, np.inf, np.nan]])) == (1, 1)


def test_sgd_is_nesterov_momentum_on_the_gradient_with_decay():
    recipe = replace(
        RECIPE, optimizer="sgd", schedule="constant", learning_rate=0.1, weight_decay=0.5
    )
    optimizer, _ = make_optimizer(recipe, 1, 1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    state = optimizer.init(params)
    momentum, kernel = 0.0, 1.0
    for _ in range(3):
        gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 2.0), params)
        updates, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        gradient = 2 + 0.5 * kernel
        momentum = 0.9 * momentum + gradient
        kernel -= 0.1 * (0.9 * momentum + gradient)
        np.testing.assert_allclose(params["kernel"], kernel, rtol=1e-5)
    assert float(params["bias"][0]) > kernel  # not decayed: it fell less


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_localization_rate_scales_the_steps_of_the_localization_network(optimizer):
    params = {"localization": {"kernel": jnp.ones((3, 3))}, "fc1": {"kernel": jnp.ones((3, 3))}}
    gradients = jax.tree.map(lambda leaf: leaf + jnp.eye(3), params)
    steps = []
    for rate in (1.0, 0.25):
        recipe = replace(RECIPE, optimizer=optimizer, schedule="constant", localization_rate=rate)
        chosen, _ = make_optimizer(recipe, 1, 1)
        steps.append(chosen.update(gradients, chosen.init(params), params)[0])
    close(steps[0]["fc1"], steps[1]["fc1"], 0)
    close(
        jax.tree.map(lambda leaf: leaf / 4, steps[0]["localization"]),
        steps[1]["localization"],
        1e-9,
    )


def test_mixed_targets_reach_the_loss():
    sums = [
        one_epoch(RECIPE, augmentation=replace(UNCHANGED, mixup=mixup))[1] for mixup in (0.0, 0.5)
    ]
    assert float(jnp.abs(sums[0]["loss"] - sums[1]["loss"]).max()) > 1e-3
