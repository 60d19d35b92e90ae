"""Trained networks as safetensors files; reading one runs no code from it.

    save_model("mine.safetensors", model, {"attention": "features"}, classes, {"seed": 0})
    trained = load_model("mine.safetensors")
    logits = trained.model(images)

The tensors are the network's weights, float32, named by their path ("stages.0.convs.1.kernel").
The file's metadata holds one JSON object under "deep_emotion_jax", with `version`, `settings`,
`classes` and `about`.
"""

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, numpy, safe_open

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import write_bytes
from deep_emotion_jax.nn.layers import ConvStage
from deep_emotion_jax.nn.model import DeepEmotion

METADATA_KEY = "deep_emotion_jax"
# Settings that decide what the weights mean; the others matter in training.
STRUCTURE = ("attention", "localization", "trunk", "width")
VERSION = 1


@dataclass(frozen=True)
class Trained:
    """A trained network, its classes and its origin.

    Attributes:
      model: maps images [N, 48, 48, 1], in [0, 1], to logits [N, K]; without BatchNorm.
      classes: the K names of the logits, in order.
      about: its origin, as saved: data, recipe, seed, results.
      settings: the keyword arguments of `DeepEmotion`, as saved.
    """

    model: DeepEmotion
    classes: tuple[str, ...]
    about: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)


def save_model(
    path: str | os.PathLike[str],
    model: DeepEmotion,
    settings: Mapping[str, Any],
    classes: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    """Writes a trained network atomically; the same network gives the same bytes.

    BatchNorm is folded into the convolutions, which keeps the logits.

    Args:
      path: the .safetensors file to write or replace; its folder exists.
      model: the network.
      settings: the keyword arguments `DeepEmotion` was built with, without `rngs`.
      classes: the K names of its logits.
      about: its origin, any JSON object.

    Raises:
      UserError: if a weight is not finite, settings or classes do not fit the network, or the file
        cannot be written.
    """
    path = Path(path)
    kept = {name: value for name, value in settings.items() if name not in ("batch_norm", "dtype")}
    tensors = {
        name: np.ascontiguousarray(leaf, dtype=np.float32)
        for name, leaf in _flat(nnx.state(fold_batch_norm(model), nnx.Param)).items()
    }
    header = {
        "version": VERSION,
        "settings": kept,
        "classes": list(classes),
        "about": dict(about),
    }
    text = json.dumps(header, allow_nan=False)
    _check(path, json.loads(text), tensors)
    try:
        write_bytes(path, numpy.save(tensors, {METADATA_KEY: text}))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def load_model(path: str | os.PathLike[str]) -> Trained:
    """Reads a network that `save_model` wrote.

    Raises:
      UserError: if the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    # safetensors would block on a pipe, and `path.is_file` fails for very long names.
    if not os.path.isfile(path):
        raise UserError(f"cannot read a network from {path}: there is no such file")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, AttributeError, TypeError) as error:
        # safetensors raises the last two for types that NumPy lacks, such as bfloat16.
        raise UserError(f"cannot read a network from {path}: {error}") from error
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{path} is a safetensors file, but was not written by deep_emotion_jax.nn.weights"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its description is not JSON ({error})") from error
    model = _check(path, header, tensors)
    state = nnx.state(model)
    # One transfer for all arrays: one for each takes 0.2 s longer.
    arrays = jax.device_put({tuple(name.split(".")): leaf for name, leaf in tensors.items()})
    nnx.replace_by_pure_dict(state, nnx.restore_int_paths(unflatten_dict(arrays)))
    nnx.update(model, state)
    return Trained(model, tuple(header["classes"]), header["about"], header["settings"])


def fold_batch_norm(model: DeepEmotion) -> DeepEmotion:
    """Returns a network without BatchNorm that has the same logits in evaluation.

    With running mean m and variance v, BatchNorm turns w * x + b into s (w * x + b - m) + beta,
    s = gamma / sqrt(v + epsilon): a convolution with kernel s w and bias s (b - m) + beta.
    """
    plain = nnx.clone(model)
    for _, stage in nnx.iter_modules(plain):
        if not isinstance(stage, ConvStage):
            continue
        for conv, norm in zip(stage.convs, stage.norms):  # noqa: B905 (no norms: nothing to do)
            mean, gamma, beta = map(jnp.asarray, (norm.mean, norm.scale, norm.bias))
            scale = gamma / jnp.sqrt(norm.var[...] + norm.epsilon)
            conv.kernel = nnx.Param(conv.kernel[...] * scale)
            conv.bias = nnx.Param((jnp.asarray(conv.bias) - mean) * scale + beta)
        stage.norms = nnx.List()
    return plain


def interpolate(first: Trained, second: Trained, share: float) -> DeepEmotion:
    """Returns a network whose weights lie between those of two others (Wortsman et al. 2022).

    Suits a network and its fine-tuned copy: networks that were trained apart have no accuracy
    between them.

    Args:
      first: the network at share 0.
      second: the network at share 1.
      share: between 0 and 1.

    Raises:
      UserError: if the networks differ in their sizes or classes.
    """
    kinds = [(_structure(trained), list(trained.classes)) for trained in (first, second)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"the networks differ: {kinds[0]} and {kinds[1]}; give a network and a fine-tuned copy "
            "of it"
        )
    model = nnx.clone(first.model)
    weights = (nnx.state(trained.model, nnx.Param) for trained in (first, second))
    nnx.update(model, jax.tree.map(lambda a, b: (1 - share) * a + share * b, *weights))
    return model


def start_from(model: DeepEmotion, classes: Sequence[str], trained: Trained) -> None:
    """Initializes a network with the weights of a trained one, for fine-tuning.

    The last layer's weights are copied for the classes that both networks name; the others keep
    their own.

    Args:
      model: the network to change.
      classes: the names of its logits.
      trained: a network of the same sizes, except for the number of classes.

    Raises:
      UserError: if the networks differ in more than their classes.
    """
    state = nnx.state(model, nnx.Param)
    new, old = _flat(state), _flat(nnx.state(trained.model, nnx.Param))
    shapes = [{name: leaf.shape for name, leaf in tensors.items()} for tensors in (new, old)]
    differing = [
        name
        for name in sorted(new.keys() | old.keys())
        if not name.startswith("fc2.") and shapes[0].get(name) != shapes[1].get(name)
    ]
    if differing or new["fc2.kernel"].shape[0] != old["fc2.kernel"].shape[0]:
        options = [f"--config.model.{k}={v}" for k, v in trained.settings.items() if k in STRUCTURE]
        raise UserError(
            f"the network of config.init_from differs from config.model in "
            f"{(differing or ['fc2.kernel'])[0]}; set config.model to match it "
            f"({' '.join([*options, '--config.model.batch_norm=False'])}), or leave "
            "config.init_from empty"
        )
    known = [(i, trained.classes.index(c)) for i, c in enumerate(classes) if c in trained.classes]
    last = {name: new[name] for name in ("fc2.kernel", "fc2.bias")}
    for name in last:
        for i, j in known:
            last[name] = last[name].at[..., i].set(old[name][..., j])
    arrays = {tuple(name.split(".")): leaf for name, leaf in {**old, **last}.items()}
    nnx.replace_by_pure_dict(state, nnx.restore_int_paths(unflatten_dict(arrays)))
    nnx.update(model, state)


def _structure(trained: Trained) -> dict[str, Any]:
    """The settings of a network that decide what its weights mean."""
    known = inspect.signature(DeepEmotion.__init__).parameters
    return {name: trained.settings.get(name, known[name].default) for name in STRUCTURE}


def _check(path: Path, header: Any, tensors: Mapping[str, np.ndarray]) -> DeepEmotion:
    """Builds a header's network with abstract weights, and checks that `tensors` fit it."""

    def fail(reason: str) -> UserError:
        return UserError(f"{path} does not hold a network of this package: {reason}")

    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise fail(f"its description is not version {VERSION}")
    settings, classes = header.get("settings"), header.get("classes")
    if not isinstance(settings, dict) or not isinstance(header.get("about"), dict):
        raise fail("its settings and about are not objects")
    if (
        not isinstance(classes, list)
        or not classes
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise fail("its classes are not a list of different names")
    known = {
        name: type(parameter.default)
        for name, parameter in inspect.signature(DeepEmotion.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("rngs", "batch_norm", "dtype")
    }
    for name, value in settings.items():
        if name not in known:
            raise fail(f"unknown setting {name!r}")
        if type(value) is not known[name] and (known[name], type(value)) != (float, int):
            raise fail(f"setting {name}={value!r} is not a value of type {known[name].__name__}")
    try:
        # Initializing the weights would take longer than everything else.
        model = nnx.eval_shape(lambda: DeepEmotion(len(classes), **settings, rngs=nnx.Rngs(0)))
    except (ValueError, ArithmeticError, TypeError) as error:
        raise fail(f"settings {settings}: {error}") from error
    expected = {name: leaf.shape for name, leaf in _flat(nnx.state(model, nnx.Param)).items()}
    if names := sorted(expected.keys() ^ tensors.keys()):
        raise fail(f"tensor {names[0]!r} is {'missing' if names[0] in expected else 'unknown'}")
    for name, shape in expected.items():
        leaf = tensors[name]
        if leaf.shape != shape or leaf.dtype != np.float32:
            raise fail(
                f"{name} should be float32 {list(shape)}, not {leaf.dtype} {list(leaf.shape)}"
            )
        if not np.isfinite(leaf).all():
            raise fail(f"{name} has numbers that are not finite")
    return model


def _flat(state: nnx.State) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): leaf
        for path, leaf in flatten_dict(nnx.to_pure_dict(state)).items()
    }
