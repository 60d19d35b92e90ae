"""All settings of a training, with their meanings, defaults and ranges.

`configs/default.py` builds its config from `Experiment`; `read_settings` converts a config back.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from deep_emotion_jax.constants import ACCELERATORS
from deep_emotion_jax.data.folds import PROTOCOLS
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.layers import INITIALIZERS, LOCALIZATION
from deep_emotion_jax.nn.model import ATTENTION, DTYPES, TRUNKS, DeepEmotion

Settings = TypeVar("Settings")
STREAMING = ("auto", "always", "never")
WHERE = "deep_emotion_jax/training/config.py lists all settings"


class Rule(NamedTuple):
    """The valid values of a setting, as a predicate and in words."""

    holds: Callable[[Any], bool]
    words: str


def real(low: float, high: float, words: str) -> Rule:
    """A number in [low, high]; NaN fails both comparisons."""
    return Rule(
        lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        ),
        words,
    )


def whole(low: int, high: int) -> Rule:
    """An int in [low, high]."""
    return Rule(
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def one_of(names: Iterable[str]) -> Rule:
    """One of `names`."""
    names = tuple(names)
    return Rule(lambda value: value in names, f"one of {', '.join(map(repr, names))}")


BOOL = Rule(lambda value: isinstance(value, bool), "True or False")
TEXT = Rule(lambda value: isinstance(value, str) and "\0" not in value, "text")
FOLDER = Rule(lambda value: TEXT.holds(value) and value != "", "the path of a folder")
NAME = Rule(
    lambda value: isinstance(value, str) and value.isidentifier(),
    "the name of a folder of datasets/",
)
SHARE = real(0, 1, "from 0 to 1")
BELOW_ONE = real(0, 1 - 1e-9, "at least 0 and less than 1")
NOT_NEGATIVE = real(0, 1e6, "from 0 to 1,000,000")


def setting(default: Any, rule: Rule) -> Any:
    """Returns a dataclass field that stores the rule in its metadata."""
    assert rule.holds(default)
    return dataclasses.field(default=default, metadata={"rule": rule})


def _argument(name: str, rule: Rule) -> Any:
    """A setting with the default of the argument of `DeepEmotion` that has its name."""
    return setting(inspect.signature(DeepEmotion.__init__).parameters[name].default, rule)


@dataclass(frozen=True)
class ModelSettings:
    """The network: the keyword arguments of `nn.model.DeepEmotion`, described there."""

    attention: str = _argument("attention", one_of(ATTENTION))
    localization: str = _argument("localization", one_of(LOCALIZATION))
    trunk: str = _argument("trunk", one_of(TRUNKS))
    batch_norm: bool = _argument("batch_norm", BOOL)
    # Below 0.1 a layer would have no channels.
    width: float = _argument("width", real(0.1, 32, "from 0.1 to 32"))
    dropout: float = _argument("dropout", BELOW_ONE)
    init: str = _argument("init", one_of(INITIALIZERS))
    dtype: str = _argument("dtype", one_of(DTYPES))


@dataclass(frozen=True)
class Recipe:
    """How the weights are fitted. Rates and decays are per step.

    Attributes:
      batch_size: images per step.
      learning_rate: constant, or the peak of the schedule.
      optimizer: "adam" (the paper's), "sgd" with Nesterov momentum 0.9 (weight decay is added to
        the gradient), or "muon": orthogonalized momentum for kernels (Jordan et al. 2024), scaled
        to the size of Adam's steps, and Adam for the rest.
      schedule: "constant", or "cosine" (linear warm-up, then cosine decay to zero).
      warmup_steps: length of the warm-up of "cosine", at most half of the training.
      weight_decay: decoupled (as in AdamW), on kernels only.
      fc_l2: lambda of the paper's loss: cross-entropy + lambda * ||w||^2 of the two fully connected
        layers of the classifier.
      label_smoothing: probability taken from the true class and spread evenly over all classes.
      teacher_share: weight of the teacher's soft labels, the rest goes to the true labels
        (distillation, Hinton et al. 2015, at temperature 1); no effect without a teacher.
      ema_decay: decay of the moving average of the weights, which is evaluated; 0 evaluates the
        weights themselves.
      localization_rate: factor on the steps of the localization network.
    """

    batch_size: int = setting(128, whole(1, 65_536))
    learning_rate: float = setting(3e-3, real(1e-12, 1e6, "more than 0 and at most 1,000,000"))
    optimizer: str = setting("adam", one_of(("adam", "sgd", "muon")))
    schedule: str = setting("cosine", one_of(("constant", "cosine")))
    warmup_steps: int = setting(100, whole(0, 1_000_000_000))
    weight_decay: float = setting(0.0, NOT_NEGATIVE)
    fc_l2: float = setting(0.0, NOT_NEGATIVE)
    label_smoothing: float = setting(0.0, BELOW_ONE)
    teacher_share: float = setting(0.0, SHARE)
    ema_decay: float = setting(0.999, BELOW_ONE)
    localization_rate: float = setting(1.0, SHARE)


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; zero or False turns a change off.

    Attributes:
      flip: mirror left and right in half of the images.
      shift: largest shift along each axis, as a fraction of the side; rounded to whole pixels, so
        that shifts alone do not blur the image (docs/experiments.md).
      rotate: largest rotation in either direction, in degrees.
      scale: largest relative change of size in either direction.
      contrast: largest relative change of contrast about the image's mean, in either direction.
      degrade: share of the images that look like small faces in poor pictures: blurred, darker or
        brighter, and noisy.
      erase: largest side of a square filled with noise in half of the images, as a fraction of
        the image's side (random erasing, Zhong et al. 2020).
      mixup: largest weight of another image of the batch and its label, drawn uniformly from 0 to
        this (mixup, Zhang et al. 2018, with alpha 1 for 0.5).
    """

    flip: bool = setting(True, BOOL)
    shift: float = setting(0.0, SHARE)
    rotate: float = setting(0.0, real(0, 180, "degrees from 0 to 180"))
    scale: float = setting(0.0, BELOW_ONE)
    contrast: float = setting(0.0, SHARE)
    degrade: float = setting(0.0, SHARE)
    erase: float = setting(0.0, SHARE)
    mixup: float = setting(0.0, real(0, 0.5, "from 0 to 0.5"))


@dataclass(frozen=True)
class Experiment:
    """All settings of a training, in the layout of a config.

    Attributes:
      seed: seeds the weights, shuffling, augmentation, dropout and random splits.
      dataset: a folder of datasets/.
      dataset_config: one of the dataset builder's configs; empty for its first.
      manual_dir: the raw data: a folder, or the downloaded file itself.
      data_dir: folder of the prepared data.
      detector: for dataset "folder": "none" trains on the central square of each picture, "builtin"
        on its largest face, detected and cropped as in `predict`.
      protocol: "official", "paper" or "subjects", see `data.folds`.
      labels: "majority" trains on one label per image, "votes" on the distribution of the votes,
        if the dataset has them (Barsoum et al. 2016).
      drop_copies: leave out training images whose pixels also occur in a validation, test or
        earlier training image; only FER-2013 marks copies.
      init_from: weights to start from: a shipped network's name or a .safetensors file.
      teacher: a trained network to distil: a shipped network's name or a .safetensors file; the
        soft labels of several, separated by commas, are averaged.
      num_epochs: length of the training and of its schedule in epochs; 0 if num_steps is set.
      num_steps: the length in steps, rounded up to whole epochs; 0 if num_epochs is set. Suits
        datasets whose epochs have only a few steps.
      accelerator: kind of device to train on; "auto" takes a TPU, else a GPU, else the CPU.
      num_devices: number of these devices in each process; 0 for all.
      streaming: "never" keeps all images on the devices, "always" reads them from the disk during
        training, "auto" streams only if they do not fit (`runtime.devices.fits`). The result is
        the same, so a run can be resumed with another value.
      seconds_between_checkpoints: least time between two checkpoints.
      model: the network.
      recipe: how its weights are fitted.
      augmentation: random changes to training images.
    """

    seed: int = setting(0, whole(0, 2**31 - 1))
    dataset: str = setting("synthetic_faces", NAME)
    dataset_config: str = setting("", TEXT)
    manual_dir: str = setting("", TEXT)
    data_dir: str = setting("data", FOLDER)
    detector: str = setting("none", one_of(("none", "builtin")))
    protocol: str = setting("official", one_of(PROTOCOLS))
    labels: str = setting("majority", one_of(("majority", "votes")))
    drop_copies: bool = setting(False, BOOL)
    init_from: str = setting("", TEXT)
    teacher: str = setting("", TEXT)
    num_epochs: int = setting(60, whole(0, 1_000_000))
    num_steps: int = setting(0, whole(0, 1_000_000_000))
    accelerator: str = setting("auto", one_of(ACCELERATORS))
    num_devices: int = setting(0, whole(0, 65_536))
    streaming: str = setting("auto", one_of(STREAMING))
    seconds_between_checkpoints: float = setting(15.0, NOT_NEGATIVE)
    model: ModelSettings = ModelSettings()
    recipe: Recipe = Recipe()
    augmentation: Augmentation = Augmentation()

    def epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs of the training."""
        return self.num_epochs or math.ceil(self.num_steps / steps_per_epoch)


def _rules(settings: Any, prefix: str = "") -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(field.default):
            found |= _rules(field.default, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = field.metadata["rule"]
    return found


RULES: dict[str, Rule] = _rules(Experiment)
"""The rule of every setting, by its dotted name without the prefix "config."."""


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks that a config has exactly the settings of `Experiment`, with values in range.

    Args:
      config: nested mappings, such as an `ml_collections.ConfigDict`.

    Raises:
      UserError: for the first setting that is missing, unknown or out of range.
    """
    given = flat(config)
    for name in sorted(RULES.keys() - given.keys()):
        raise UserError(f"config.{name} is missing; {WHERE}")
    for name, value in given.items():
        if name not in RULES:
            raise UserError(f"unknown setting config.{name}; {WHERE}")
        if not RULES[name].holds(value):
            raise UserError(f"config.{name}={value!r} must be {RULES[name].words}")
    epochs, steps = given["num_epochs"], given["num_steps"]
    if epochs and steps:
        raise UserError(
            f"config.num_epochs={epochs} and config.num_steps={steps} both set the length of the "
            "training; set one of them to 0"
        )
    if not epochs and not steps:
        raise UserError(
            f"config.num_epochs={epochs} must be a whole number from 1 to 1000000 if "
            "config.num_steps is 0"
        )


def read_settings(config: Mapping[str, Any]) -> Experiment:
    """Converts a config to typed settings.

    Raises:
      UserError: as `check_settings`.
    """
    check_settings(config)
    return _build(Experiment, config)


def _build(kind: Callable[..., Settings], config: Mapping[str, Any]) -> Settings:
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(
        **{
            field.name: _build(type(field.default), config[field.name])
            if dataclasses.is_dataclass(field.default)
            else config[field.name]
            for field in fields
        }
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
