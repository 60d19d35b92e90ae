"""Command-line options of training: a config file and overrides of its settings."""

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deep_emotion_jax.cli.options import path

if TYPE_CHECKING:
    from ml_collections import ConfigDict

CONFIGS = Path(__file__).parent
DEFAULT = CONFIGS / "synthetic_faces.py"
SETTINGS_HELP = (
    "Settings are changed with --config.NAME=VALUE, such as --config.recipe.learning_rate=0.001.\n"
    "deep_emotion_jax/training/config.py lists them with their meanings, defaults and ranges."
)
_PATHS = ("manual_dir", "data_dir", "init_from", "teacher")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def add_options(
    parser: argparse.ArgumentParser, *, config_required: bool = False, suffix: str = ""
) -> None:
    """Adds --config and --workdir.

    Args:
      parser: the parser of the command.
      config_required: whether --config is required; else it has a default.
      suffix: appended to the name of the default workdir.
    """
    default = "" if config_required else "; default: configs/synthetic_faces.py, without downloads"
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=config_required,
        help=f"a file of configs/{default}. FILE:TEXT calls get_config(TEXT)",
    )
    parser.add_argument(
        "--workdir",
        type=path,
        metavar="FOLDER",
        help=f"folder for all results; default: runs/NAME{suffix}, NAME from the config file",
    )


def read_config(file: str | None, overrides: Sequence[str] = ()) -> tuple["ConfigDict", str]:
    """Reads a config file, overrides settings, and checks all of them.

    Args:
      file: a Python file that defines `get_config`, or "FILE:TEXT" to call get_config(TEXT); None
        for `DEFAULT`.
      overrides: arguments such as "--config.num_epochs=3", or the same as two arguments.

    Returns:
      The config, and the file's name without its suffix.

    Raises:
      UserError: if the file cannot be read, a setting is unknown, or a value is out of range.
    """
    from deep_emotion_jax.errors import UserError
    from deep_emotion_jax.training.config import RULES, WHERE, check_settings, flat

    name, separator, text = (file or str(DEFAULT)).partition(":")
    config = _load(path(name), [text] if separator else [])
    current = flat(config)
    for setting, value in _assignments(overrides):
        if setting not in RULES or setting not in current:
            close = difflib.get_close_matches(setting, RULES, n=1)
            hint = f'. Did you mean "{close[0]}"?' if close else ";"
            raise UserError(f"unknown setting config.{setting}{hint} {WHERE}")
        _set(config, setting, _parse(setting, value, current[setting]))
    _choose_length(config, overrides)
    for setting in _PATHS:
        if isinstance(config.get(setting), str):
            config[setting] = str(Path(config[setting]).expanduser()) if config[setting] else ""
    check_settings(config)
    return config, path(name).stem


def _choose_length(config: Any, overrides: Sequence[str]) -> None:
    """Zeroes the length in the other unit if an override sets num_epochs or num_steps."""
    given = {name for name, _ in _assignments(overrides)}
    for name, other in (("num_epochs", "num_steps"), ("num_steps", "num_epochs")):
        if name in given and other not in given:
            config[other] = 0


def _load(file: Path, arguments: list[str]) -> "ConfigDict":
    from deep_emotion_jax.errors import UserError

    if file.suffix != ".py" or not os.path.isfile(file):
        raise UserError(
            f"--config={file} is not a Python file; the configs of this project are in {CONFIGS}"
        )
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return module.get_config(*arguments)
    except UserError:
        raise
    except Exception as error:  # a config can raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"--config={file} cannot be read: {reason}") from error


def _assignments(overrides: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yields names and values of settings; a missing value is None."""
    from deep_emotion_jax.errors import UserError

    rest = list(overrides)
    while rest:
        argument = rest.pop(0)
        name, separator, value = argument.partition("=")
        if not name.startswith("--config."):
            kind = "option" if argument.startswith("-") else "argument"
            raise UserError(
                f"unexpected {kind} {argument!r}: change settings with --config.NAME=VALUE; "
                "--help lists the options"
            )
        alone = not separator and (not rest or rest[0].startswith("--"))
        yield name.removeprefix("--config."), value if separator else None if alone else rest.pop(0)


def _parse(name: str, text: str | None, current: Any) -> Any:
    """Converts the text of a setting to the type of its current value."""
    from deep_emotion_jax.errors import UserError
    from deep_emotion_jax.training.config import RULES

    kind = type(current)
    try:
        if kind is bool:
            return True if text is None else _BOOLS[text.lower()]
        if text is None:
            raise ValueError("no value")
        return kind(text)
    except (KeyError, ValueError) as error:
        given = " without a value" if text is None else f"={text!r}"
        raise UserError(f"config.{name}{given} must be {RULES[name].words}") from error


def _set(config: Any, name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    for section in sections:
        config = config[section]
    assert isinstance(config, Mapping) or hasattr(config, "items")
    config[leaf] = value
