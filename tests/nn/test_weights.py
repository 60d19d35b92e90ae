"""Weights files: round trips, folded BatchNorm, one-sentence errors for damaged files."""

import json
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import GOLDEN_FILES
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from deep_emotion_jax import load_pretrained
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import ConvStage, DeepEmotion, count_parameters
from deep_emotion_jax.nn.weights import (
    METADATA_KEY,
    Trained,
    fold_batch_norm,
    interpolate,
    load_model,
    save_model,
)
from deep_emotion_jax.pretrained import pretrained_names

GOLDEN = GOLDEN_FILES / "pretrained_logits.npz"
CLASSES = ("a", "b", "c")


FACES = np.random.default_rng(1).random((3, 48, 48, 1), np.float32)


def build(**options):
    """A network with abstract weights, which take no time to initialize."""
    return nnx.eval_shape(lambda: DeepEmotion(len(CLASSES), **options, rngs=nnx.Rngs(0)))


def randomized(**options):
    """A network with random weights, biases and statistics, theta included."""
    model = build(**options)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    rng = np.random.default_rng(0)
    for path, leaf in nnx.to_flat_state(state):
        scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if path[-1] == "kernel" else 0.3
        value = rng.normal(0, scale, leaf.shape)
        leaf.set_value(jnp.asarray(abs(value) + 0.01 if path[-1] == "var" else value, jnp.float32))
    nnx.update(model, state)
    return model


def logits(model, images=FACES):
    graph, state = nnx.split(model)
    program = jax.jit(
        lambda state, images: nnx.merge(graph, state)(images),
        compiler_options={"xla_backend_optimization_level": 0},  # compiles in a fifth of the time
    )
    return np.asarray(program(state, images))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_model(path, randomized(), {"attention": "features"}, CLASSES, {"seed": 3})
    return path.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "image", "dropout": 0},
        {"attention": "none", "width": 1.5, "init": "gaussian"},
        {"localization": "port"},
    ],
)
def test_round_trip(tmp_path, options):
    path, model = tmp_path / "net.safetensors", randomized(**options)
    save_model(path, model, options, CLASSES, {"seed": 3, "recipe": {"epochs": [1, 2.5]}})
    trained = load_model(path)
    assert nnx.graphdef(trained.model) == nnx.graphdef(model)
    chex.assert_trees_all_equal(nnx.state(trained.model), nnx.state(model))
    assert trained.classes == CLASSES
    assert trained.about == {"seed": 3, "recipe": {"epochs": [1, 2.5]}}
    assert trained.model.attention == model.attention
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_batch_norm_is_folded(tmp_path):
    options = {"attention": "image", "localization": "port"}
    model = randomized(batch_norm=True, **options)
    before = logits(model)
    save_model(tmp_path / "net", model, options | {"batch_norm": True}, CLASSES, {})
    plain = load_model(tmp_path / "net").model
    np.testing.assert_allclose(logits(plain), before, atol=1e-5)
    assert count_parameters(plain) == count_parameters(build(**options))
    # The network itself is unchanged, and its norms matter to its logits.
    np.testing.assert_array_equal(logits(model), before)
    for _, stage in nnx.iter_modules(model):
        if isinstance(stage, ConvStage):
            stage.norms = nnx.List()
    assert np.abs(logits(model) - before).max() > 1e-2


def test_folding_a_plain_network_changes_nothing():
    model = randomized()
    chex.assert_trees_all_equal(nnx.state(fold_batch_norm(model)), nnx.state(model))


def test_loaded_weights_are_concrete(tmp_path, written):
    (tmp_path / "net").write_bytes(written)
    leaves = jax.tree.leaves(nnx.state(load_model(tmp_path / "net").model))
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)


def test_the_same_network_gives_the_same_bytes(tmp_path, written):
    save_model(tmp_path / "b", randomized(), {"attention": "features"}, CLASSES, {"seed": 3})
    assert (tmp_path / "b").read_bytes() == written


def test_save_model_refuses_settings_and_classes_that_do_not_fit(tmp_path):
    path, model = tmp_path / "net", randomized()
    for bad_settings, classes in (
        ({"attention": "none"}, CLASSES),
        ({"width": 2.0}, CLASSES),
        ({"wdth": 1.0}, CLASSES),
        ({}, "abcd"),
        ({}, "aab"),
    ):
        with pytest.raises(UserError):
            save_model(path, model, bad_settings, classes, {})
    model.fc1.bias[...] = model.fc1.bias[...].at[3].set(jnp.nan)
    with pytest.raises(UserError, match=r"fc1\.bias has numbers that are not finite"):
        save_model(path, model, {}, CLASSES, {})
    with pytest.raises(UserError, match="cannot write"):
        save_model(tmp_path / "missing" / "net", randomized(), {}, CLASSES, {})
    assert not list(tmp_path.iterdir())


def changed(written, tensors=None, **header):
    """The file with other tensors or another description."""
    description = {"version": 1, "settings": {}, "classes": list(CLASSES), "about": {}} | header
    return save(load(written) | (tensors or {}), {METADATA_KEY: json.dumps(description)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: b"", "cannot read a network"),
        (lambda b: b[:-1], "cannot read a network"),
        (lambda b: b"PK\x03\x04" + b[4:], "cannot read a network"),
        (lambda b: save(load(b)), "not written by deep_emotion_jax.nn.weights"),
        (lambda b: save(load(b), {METADATA_KEY: "{"}), "not JSON"),
        (lambda b: save(load(b), {METADATA_KEY: "[" * 100_000}), "not JSON"),
        (lambda b: changed(b, version=2), "version 1"),
        (lambda b: changed(b, settings={"rngs": 1}), "unknown setting 'rngs'"),
        (lambda b: changed(b, settings={"batch_norm": True}), "unknown setting 'batch_norm'"),
        (lambda b: changed(b, settings={"width": "1"}), "width='1' is not a value of type float"),
        (lambda b: changed(b, settings={"width": 1e300}), "should be"),
        (lambda b: changed(b, settings={"width": float("nan")}), "settings"),
        (lambda b: changed(b, settings={"width": 0.0}), "settings|should be"),
        (lambda b: changed(b, settings={"attention": "everywhere"}), "everywhere"),
        (lambda b: changed(b, classes=["a", "b"]), r"float32 \[2\]"),
        (lambda b: changed(b, classes=["a", "a", "b"]), "different names"),
        (lambda b: changed(b, about=[]), "not objects"),
        (lambda b: changed(b, {"more": np.zeros(1, np.float32)}), "'more' is unknown"),
        (lambda b: changed(b, settings={"attention": "none"}), "is unknown"),
        (lambda b: changed(b, {"fc2.bias": np.zeros(3)}), r"float64 \[3\]"),
        (lambda b: changed(b, {"fc2.bias": np.zeros((1, 3), np.float32)}), r"\[1, 3\]"),
        (lambda b: changed(b, {"fc2.bias": np.full(3, np.inf, np.float32)}), "not finite"),
    ],
)
def test_damaged_files_give_one_sentence(tmp_path, written, make, message):
    path = tmp_path / "net.safetensors"
    path.write_bytes(make(written))
    with pytest.raises(UserError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_tensor_is_named(tmp_path, written):
    tensors = load(written)
    del tensors["stages.1.convs.0.bias"]
    path = tmp_path / "net.safetensors"
    description = {"version": 1, "settings": {}, "classes": list(CLASSES), "about": {}}
    path.write_bytes(save(tensors, {METADATA_KEY: json.dumps(description)}))
    with pytest.raises(UserError, match=r"'stages\.1\.convs\.0\.bias' is missing"):
        load_model(path)


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("C64", 8)])
def test_unsupported_types_raise_user_error(tmp_path, dtype, size):
    tensor = {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}
    header = json.dumps({"__metadata__": {METADATA_KEY: "{}"}, "fc2.bias": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(2 * size)
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(UserError):
        load_model(tmp_path / "net")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(UserError, match="cannot read a network"):
            load_model(path)


def load_or_user_error(path, content):
    path.write_bytes(content)
    try:
        trained = load_model(path)
    except UserError:
        return
    leaves = jax.tree.leaves(nnx.state(trained.model, nnx.Param))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes_and_truncation(tmp_path, written, data):
    content = bytearray(written)
    # The header is a fiftieth of the file; damage there is more varied.
    places = st.integers(0, 3000) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    load_or_user_error(tmp_path / "net", bytes(content[: data.draw(places | st.none())]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(("attention", "localization", "width", "dropout", "init", "batch_norm"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=JSON
    | st.fixed_dictionaries(
        {"version": st.just(1), "about": JSON},
        optional={
            "settings": JSON | st.dictionaries(NAMES, JSON),
            "classes": JSON | st.just(list(CLASSES)),
        },
    )
)
def test_any_json_as_description(tmp_path, written, header):
    text = json.dumps(header)
    load_or_user_error(tmp_path / "net", save(load(written), {METADATA_KEY: text}))


@pytest.mark.parametrize("name", pretrained_names())
def test_pretrained_networks_give_the_stored_logits(name):
    with np.load(GOLDEN) as golden:
        images, expected = golden["images"], golden[name]
    trained = load_pretrained(name)
    answers = logits(trained.model, images.astype(np.float32) / 255)
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    assert len(trained.classes) == expected.shape[1]


def test_the_papers_network_is_included():
    trained = load_pretrained("deep_emotion.fer2013")
    assert count_parameters(trained.model) == 47_657
    assert trained.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_unknown_pretrained_name():
    for name in ("fer2014", "../pretrained/deep_emotion.fer2013", ""):
        with pytest.raises(UserError, match=r"deep_emotion\.fer2013"):
            load_pretrained(name)


@pytest.mark.parametrize("old", ["fer2013-paper", "fer2013-wide"])
def test_a_renamed_network_is_named_in_the_error(old):
    with pytest.raises(UserError, match="renamed") as caught:
        load_pretrained(old)
    assert any(name in str(caught.value) for name in pretrained_names())


def test_importing_the_package_is_light():
    code = "import deep_emotion_jax, sys; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_interpolated_weights_lie_between_those_of_two_networks():
    networks = [Trained(DeepEmotion(3, rngs=nnx.Rngs(i)), CLASSES, {}, {}) for i in (0, 1)]
    kernels = [np.asarray(trained.model.fc1.kernel) for trained in networks]
    found = interpolate(*networks, 0.25)
    np.testing.assert_allclose(found.fc1.kernel, 0.75 * kernels[0] + 0.25 * kernels[1], atol=1e-6)
    np.testing.assert_array_equal(networks[0].model.fc1.kernel, kernels[0])
    chex.assert_trees_all_equal(
        nnx.state(interpolate(*networks, 1.0)), nnx.state(networks[1].model)
    )
    same = Trained(networks[1].model, CLASSES, {}, {"width": 1.0, "dropout": 0.3})
    np.testing.assert_allclose(interpolate(networks[0], same, 1.0).fc1.kernel, kernels[1])
    for changed_settings, classes in (({"width": 2.0}, CLASSES), ({}, CLASSES[::-1])):
        with pytest.raises(UserError, match="fine-tuned copy"):
            interpolate(networks[0], Trained(networks[1].model, classes, {}, changed_settings), 0.5)
