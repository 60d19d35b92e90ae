"""Types and options shared by the commands."""

import argparse
from pathlib import Path

from deep_emotion_jax.constants import ACCELERATORS, DEFAULT_MODEL


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of descriptions, and widens the column of option names."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)


def path(text: str) -> Path:
    """Convert to a path and expand "~", which shells do not expand after "=".

    Raises:
      argparse.ArgumentTypeError: for an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"cannot expand {text!r}: {error}") from error


def network(text: str) -> str:
    """Convert the name of a network of the package, or a path, whose "~" is expanded."""
    return str(path(text)) if text.startswith("~") else text


def add_model(
    parser: argparse._ActionsContainer,
    *,
    default: str | None = DEFAULT_MODEL,
    required: bool = False,
) -> None:
    """Add --model, which `pretrained.load_pretrained` takes."""
    parser.add_argument(
        "--model",
        type=network,
        default=default,
        required=required,
        metavar="NAME_OR_PATH",
        help="a network of the package or a .safetensors file"
        + (" (default: %(default)s)" if default else ""),
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device; `runtime.devices.choose_devices` takes its value."""
    parser.add_argument(
        "--device",
        choices=ACCELERATORS,
        default="auto",
        help="device to compute on (default: %(default)s, a TPU or GPU if available)",
    )
