"""Which values the settings of a run may have, checked before anything is read or trained."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from deep_emotion_jax.data.folds import PROTOCOLS
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.model import ATTENTION, INITIALIZERS, LOCALIZATION, TRUNKS


class Rule(NamedTuple):
    """What a setting may be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str


def _real(low: float, high: float, words: str) -> Rule:
    # NaN fails every comparison.
    return Rule(
        lambda value: (
            isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        ),
        words,
    )


def _whole(low: int, high: int) -> Rule:
    return Rule(
        lambda value: type(value) is int and low <= value <= high,
        f"a whole number from {low} to {high}",
    )


def _one_of(names: Any) -> Rule:
    names = tuple(names)
    return Rule(lambda value: value in names, f"one of {', '.join(map(repr, names))}")


_BOOL = Rule(lambda value: isinstance(value, bool), "True or False")
_TEXT = Rule(lambda value: isinstance(value, str) and "\0" not in value, "text")
_NAME = Rule(
    lambda value: isinstance(value, str) and value.isidentifier(),
    "the name of a folder of datasets/",
)
_SHARE = _real(0, 1, "from 0 to 1")
_BELOW_ONE = _real(0, 1 - 1e-9, "at least 0 and less than 1")
_NOT_NEGATIVE = _real(0, 1e6, "from 0 to 1,000,000")

RULES: dict[str, Rule] = {
    "seed": _whole(0, 2**31 - 1),
    "dataset": _NAME,
    "dataset_config": _TEXT,
    "manual_dir": _TEXT,
    "data_dir": Rule(lambda value: _TEXT.holds(value) and value != "", "the path of a folder"),
    "protocol": _one_of(PROTOCOLS),
    "init_from": _TEXT,
    "teacher": _TEXT,
    "model.attention": _one_of(ATTENTION),
    "model.localization": _one_of(LOCALIZATION),
    "model.trunk": _one_of(TRUNKS),
    "model.batch_norm": _BOOL,
    # Below, a layer would have no channels.
    "model.width": _real(0.1, 32, "from 0.1 to 32"),
    "model.dropout": _BELOW_ONE,
    "model.init": _one_of(INITIALIZERS),
    "recipe.batch_size": _whole(1, 65_536),
    "recipe.learning_rate": _real(1e-12, 1e6, "more than 0 and at most 1,000,000"),
    "recipe.optimizer": _one_of(("adam", "muon")),
    "recipe.schedule": _one_of(("constant", "cosine")),
    "recipe.warmup_epochs": _NOT_NEGATIVE,
    "recipe.weight_decay": _NOT_NEGATIVE,
    "recipe.fc_l2": _NOT_NEGATIVE,
    "recipe.label_smoothing": _BELOW_ONE,
    "recipe.teacher_share": _SHARE,
    "recipe.ema_decay": _BELOW_ONE,
    "num_epochs": _whole(1, 1_000_000),
    "seconds_between_checkpoints": _NOT_NEGATIVE,
    "augmentation.flip": _BOOL,
    "augmentation.shift": _SHARE,
    "augmentation.rotate": _real(0, 180, "degrees from 0 to 180"),
    "augmentation.scale": _BELOW_ONE,
    "augmentation.contrast": _SHARE,
    "augmentation.erase": _SHARE,
}


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks that a config has all settings of configs/default.py, no others, and sound values.

    Args:
      config: nested mappings, such as an `ml_collections.ConfigDict`.

    Raises:
      UserError: the first setting that is missing, unknown or out of its range.
    """
    given = _flat(config)
    for name in RULES.keys() - given.keys():
        raise UserError(f"config.{name} is missing; configs/default.py has all settings")
    for name, value in given.items():
        if name not in RULES:
            raise UserError(f"there is no setting config.{name}; configs/default.py lists all")
        if not RULES[name].holds(value):
            raise UserError(f"config.{name}={value!r} must be {RULES[name].words}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
