"""Both forms of a stage have the values and gradients of JAX's own operations."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from deep_emotion_jax.nn import conv
from deep_emotion_jax.nn.conv import ConvLayer

STAGES = {  # every stage of every model: image side, channels, kernel, pool, padding
    "features 1": (48, (1, 10, 10), 3, 2, "VALID"),
    "features 2": (22, (10, 10, 10), 3, 2, "VALID"),
    "localization 1": (48, (1, 8), 3, 4, "SAME"),
    "localization 2": (12, (8, 10), 3, 4, "SAME"),
    "port 1": (48, (1, 8), 7, 2, "VALID"),
    "wide": (22, (20, 20, 20), 3, 2, "VALID"),
    "wide trunk 1": (48, (1, 24, 24), 3, 2, "SAME"),
    "same 5x5": (12, (2, 3), 5, 2, "SAME"),
}


def stage_inputs(name):
    side, channels, size, pool, padding = STAGES[name]
    keys = jax.random.split(jax.random.key(len(name)), 2 * len(channels))
    x = jax.random.normal(keys[0], (2, side, side, channels[0]))
    weights = [
        (
            0.2 * jax.random.normal(keys[2 * i + 1], (size, size, c_in, c_out)),
            jax.random.normal(keys[2 * i + 2], (c_out,)),
        )
        for i, (c_in, c_out) in enumerate(pairwise(channels))
    ]
    return x, weights, pool, padding


def reference_stage(x, layers, pool, padding):
    """The stage in JAX's own operations, with JAX's own gradients."""
    for i, (kernel, bias, _) in enumerate(layers):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)
        x = x + bias if i == len(layers) - 1 else jax.nn.relu(x + bias)
    sizes = (1, pool, pool, 1)
    return jax.nn.relu(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, sizes, "VALID"))


@pytest.mark.parametrize("name", STAGES)
def test_both_forms_have_the_values_and_gradients_of_the_reference(name):
    x, weights, pool, padding = stage_inputs(name)

    @partial(jax.jit, static_argnums=2)
    def value_and_gradients(x, weights, stage):
        def total(x, weights):
            out = stage(x, [ConvLayer(*w) for w in weights], pool, padding)
            return jnp.sum(jnp.sin(out)), out

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(x, weights)

    expected = jax.tree.leaves(value_and_gradients(x, weights, reference_stage))
    forms = [conv.plain_stage]
    if name != "wide trunk 1":  # blocks do not tile it
        forms.append(conv._blocked_stage)
    for form in forms:
        found = jax.tree.leaves(value_and_gradients(x, weights, form))
        for f, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(f, e, rtol=0, atol=2e-5 * np.abs(e).max())


def test_norm_gets_channels_last_in_both_forms():
    x, weights, pool, padding = stage_inputs("features 1")

    def norm(y):
        assert y.shape[-1] == 10
        axes = tuple(range(y.ndim - 1))
        return (y - y.mean(axes)) / y.std(axes)

    layers = [ConvLayer(*w, norm) for w in weights]
    plain = conv.plain_stage(x, layers, pool, padding)
    blocked = conv._blocked_stage(x, layers, pool, padding)
    np.testing.assert_allclose(blocked, plain, rtol=1e-4, atol=1e-4)


def test_plain_stage_is_correlation_max_pool_and_relu():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 3)).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    out = conv.plain_stage(jnp.asarray(x), [ConvLayer(kernel, bias)], 2, "VALID")
    full = np.stack(
        [correlate(x[0], kernel[..., c], mode="valid")[..., 0] + bias[c] for c in range(3)], -1
    )
    expected = np.maximum(full.reshape(2, 2, 2, 2, 3).max((1, 3)), 0)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=1e-5)


def test_residual_stage_adds_the_first_layers_output_before_the_pool():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
    layers = [
        ConvLayer(jnp.asarray(rng.normal(size=(3, 3, 4, 4)), jnp.float32) / 6, jnp.ones(4))
        for _ in range(3)
    ]

    def parts(x, layers):
        return conv.plain_stage(x, layers, 1, "SAME")  # every layer with its ReLU

    first = parts(x, layers[:1])
    kernel, bias, _ = layers[2]
    last = jax.lax.conv_general_dilated(
        parts(first, layers[1:2]),
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    total = jax.nn.relu(first + last + bias).reshape(2, 4, 2, 4, 2, 4).max((2, 4))
    out = conv.conv_stage(x, layers, 2, "SAME", residual=True)
    np.testing.assert_allclose(out, total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("side", "pool"), [(21, 2), (16, 3)])
def test_shapes_that_blocks_do_not_tile_use_the_plain_form(side, pool):
    x = jax.random.normal(jax.random.key(0), (2, side, side, 4))
    layers = [ConvLayer(jnp.ones((3, 3, 4, 5)), jnp.zeros(5))]
    out = conv.conv_stage(x, layers, pool, "VALID")
    np.testing.assert_array_equal(out, conv.plain_stage(x, layers, pool, "VALID"))
    assert out.shape == (2, (side - 2) // pool, (side - 2) // pool, 5)
