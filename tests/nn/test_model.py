"""The network: sizes of the paper, identity at initialization, dropout only in training."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deep_emotion_jax.nn.layers import LocalizationNetwork, standardize
from deep_emotion_jax.nn.logits import assemble, split_model
from deep_emotion_jax.nn.model import IMAGE_SIZE, DeepEmotion, count_parameters


def faces(count=4):
    return jax.random.uniform(jax.random.key(1), (count, 48, 48, 1))


def answer(model, x, **options):
    """The model's output, compiled as one program, which is faster than many small ones."""
    graph, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x, **options))(state, x)


def features(model, x, **options):
    """The classifier's input [N, 9, 9, 10]."""
    graph, state = nnx.split(model)
    found = jax.jit(lambda state, x: nnx.merge(graph, state).features(x, **options))(state, x)
    return np.asarray(found).reshape(-1, 9, 9, 10)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 47_657),  # the figure
        ({"attention": "image"}, 47_657),
        ({"localization": "port"}, 66_857),
        ({"attention": "none"}, 47_657 - 3_920),
        ({"batch_norm": True}, 47_657 + 2 * (4 * 10 + 8 + 10)),
        ({"num_classes": 8}, 47_657 + 51),
        ({"trunk": "wide"}, 968_479),  # nine 3x3 convolutions, FC 1728-128 and 128-7
        ({"trunk": "residual", "localization": "leaky"}, 1_172_989),
    ],
)
def test_parameter_counts(options, parameters):
    model = nnx.eval_shape(lambda: DeepEmotion(**options, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == parameters


def test_width_scales_channels():
    model = DeepEmotion(width=2, rngs=nnx.Rngs(0))
    convs = (9 * 1 + 1) * 20 + 3 * (9 * 20 + 1) * 20 + (9 * 1 + 1) * 16 + (9 * 16 + 1) * 20
    linear = (81 * 20 + 1) * 100 + 101 * 7 + (9 * 20 + 1) * 64 + 65 * 6
    assert count_parameters(model) == convs + linear
    assert answer(model, faces()).shape == (4, 7)


def test_theta_is_initialized_to_the_identity():
    for variant in ("figure", "port", "leaky"):
        theta = answer(LocalizationNetwork(variant, rngs=nnx.Rngs(0)), faces())
        np.testing.assert_array_equal(theta, np.tile([[[1.0, 0, 0], [0, 1, 0]]], (4, 1, 1)))


def test_sampler_is_the_identity_at_initialization():
    logits = [
        answer(DeepEmotion(attention=where, rngs=nnx.Rngs(0)), faces())
        for where in ("features", "middle", "image")
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[0], logits[2], rtol=1e-4, atol=1e-4)


def gradients(model, loss):
    """Gradients of a loss of the output for `faces()`, as one program."""
    params, stats = split_model(model)
    return jax.jit(jax.grad(lambda params: loss(assemble(model, params, stats)(faces()))))(params)


@pytest.mark.parametrize("where", ["features", "middle", "image"])
def test_theta_affects_the_logits(where):
    model = DeepEmotion(attention=where, rngs=nnx.Rngs(0))
    before = answer(model, faces())
    model.localization.theta.bias[...] = jnp.array([0.5, 0, 0.1, 0, 0.5, 0.0])
    assert float(jnp.abs(answer(model, faces()) - before).max()) > 1e-2
    grads = gradients(model, lambda logits: logits[:, 0].sum())
    assert float(jnp.abs(grads["localization"]["theta"]["bias"]).max()) > 0


def test_the_sampler_moves_the_last_features():
    model = DeepEmotion(rngs=nnx.Rngs(0))
    still = features(model, faces())
    model.localization.theta.bias[...] = jnp.array([1, 0, 2 / 9, 0, 1, 0])  # by a cell
    moved = features(model, faces())
    np.testing.assert_allclose(moved[:, :, :-1], still[:, :, 1:], atol=1e-4)
    np.testing.assert_allclose(moved[:, :, -1], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "span"),
    [
        ({}, 36 / 48),  # 9 cells of 4 pixels
        ({"attention": "middle"}, 44 / 48),  # 22 of 2
        ({"attention": "middle", "trunk": "residual"}, 1.0),
        ({"attention": "features", "trunk": "wide"}, 1.0),
        ({"attention": "image"}, 1.0),
    ],
)
def test_span_is_the_share_of_the_face_that_the_map_covers(options, span):
    model = nnx.eval_shape(lambda: DeepEmotion(**options, rngs=nnx.Rngs(0)))
    assert model.span == pytest.approx(span)


def test_units_of_the_leaky_localization_network_cannot_die():
    localization = LocalizationNetwork("leaky", rngs=nnx.Rngs(0))
    localization.hidden.bias[...] = jnp.full(48, -100.0)  # every unit negative on every face
    localization.theta.kernel[...] = jnp.ones((48, 6))
    grads = gradients(localization, jnp.sum)
    assert float(jnp.abs(grads["hidden"]["kernel"]).max()) > 0


def test_bfloat16_logits_are_close_to_float32():
    models = [
        DeepEmotion(trunk="residual", width=0.25, dtype=dtype, rngs=nnx.Rngs(0))
        for dtype in ("float32", "bfloat16")
    ]
    exact, coarse = (answer(model, faces()) for model in models)
    assert coarse.dtype == jnp.float32
    assert 0 < float(jnp.abs(exact - coarse).max()) < 0.05 * float(jnp.abs(exact).max())


def test_dropout_is_off_at_evaluation_and_on_in_training():
    model = DeepEmotion(dropout=0.5, rngs=nnx.Rngs(0))
    x = faces()
    np.testing.assert_array_equal(answer(model, x), answer(model, x))
    trained = [answer(model, x, train=True, dropout_key=jax.random.key(seed)) for seed in (0, 1)]
    assert float(jnp.abs(trained[0] - trained[1]).max()) > 1e-2
    without = DeepEmotion(dropout=0.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(answer(model, x), answer(without, x))


def test_dropout_acts_on_the_last_features_alone():
    model = DeepEmotion(attention="none", dropout=0.5, rngs=nnx.Rngs(0))
    kept = features(model, faces())
    dropped = features(model, faces(), train=True, dropout_key=jax.random.key(0))
    alive = dropped != 0
    np.testing.assert_allclose(dropped[alive], 2 * kept[alive], rtol=1e-5)
    assert 0.4 < alive[kept > 0].mean() < 0.6


def test_batch_norm_uses_running_statistics_at_evaluation():
    model = DeepEmotion(batch_norm=True, dropout=0.0, rngs=nnx.Rngs(0))
    one_by_one = jnp.concatenate([answer(model, face[None]) for face in faces()])
    np.testing.assert_allclose(answer(model, faces()), one_by_one, rtol=1e-4, atol=1e-4)
    graph, state = nnx.split(model)

    @jax.jit
    def train(state, x):
        model = nnx.merge(graph, state)
        model(x, train=True)
        return nnx.state(model, nnx.BatchStat)

    before = jax.tree.leaves(nnx.state(model, nnx.BatchStat))
    after = jax.tree.leaves(train(state, faces()))
    assert any(float(jnp.abs(a - b).max()) > 0 for a, b in zip(after, before, strict=True))


def test_standardize_ignores_exposure_and_contrast():
    x = faces()
    np.testing.assert_allclose(standardize(0.3 * x + 0.2), standardize(x), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(standardize(jnp.full((1, 48, 48, 1), 0.5)), 0)


@pytest.mark.parametrize(
    ("attention", "localization"),
    list(itertools.product(["features", "image"], ["figure", "port"])),
)
def test_extreme_faces_give_finite_loss_and_gradients(attention, localization):
    model = DeepEmotion(attention=attention, localization=localization, rngs=nnx.Rngs(0))
    model.localization.theta.bias[...] = 1e6 * jnp.ones(6)
    x = jnp.stack([jnp.zeros((48, 48, 1)), jnp.ones((48, 48, 1)), *faces(2)])
    params, stats = split_model(model)

    def total(params):
        return jnp.sum(jax.nn.logsumexp(assemble(model, params, stats)(x), -1))

    loss, grads = jax.jit(jax.value_and_grad(total))(params)
    chex.assert_tree_all_finite((loss, grads))


class TestInsideOtherCode(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_jit(self):
        model = DeepEmotion(rngs=nnx.Rngs(0))
        graph, state = nnx.split(model)
        logits = self.variant(lambda state, x: nnx.merge(graph, state)(x))(state, faces())
        np.testing.assert_allclose(logits, answer(model, faces()), rtol=1e-4, atol=1e-4)

    def test_vmap_over_models(self):
        models = [DeepEmotion(rngs=nnx.Rngs(seed)) for seed in range(2)]
        graph = nnx.split(models[0])[0]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, models))
        logits = jax.jit(jax.vmap(lambda state: nnx.merge(graph, state)(faces())))(states)
        for i, model in enumerate(models):
            np.testing.assert_allclose(logits[i], answer(model, faces()), rtol=1e-4, atol=1e-4)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="'everywhere'"):
        DeepEmotion(attention="everywhere", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'resnet'"):
        DeepEmotion(localization="resnet", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'ones'"):
        DeepEmotion(init="ones", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'float16'"):
        DeepEmotion(dtype="float16", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="64"):
        DeepEmotion(rngs=nnx.Rngs(0))(jnp.zeros((1, 64, 64, 1)))
    with pytest.raises(ValueError, match="attention='none'"):
        DeepEmotion(attention="none", rngs=nnx.Rngs(0)).theta(faces())


def test_gaussian_init_has_the_quoted_deviation():
    model = DeepEmotion(init="gaussian", rngs=nnx.Rngs(0))
    assert float(model.fc1.kernel[...].std()) == pytest.approx(0.05, rel=0.02)
    assert IMAGE_SIZE == 48
