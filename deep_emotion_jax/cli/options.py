"""What the commands have in common: types and options of the command line."""

import argparse
from pathlib import Path

ACCELERATORS = ("auto", "cpu", "gpu", "tpu")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of descriptions, and leaves more room for option names."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)


def path(text: str) -> Path:
    """Read a path, with "~" as the home folder: shells do not expand it after "=".

    Raises:
      argparse.ArgumentTypeError: if there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"cannot expand {text!r}: {error}") from error


def network(text: str) -> str:
    """Read the name of a network of the package, or the path of a file, as `path` does."""
    return str(path(text)) if text.startswith("~") else text


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device; `runtime.devices.choose_devices` takes its value."""
    parser.add_argument(
        "--device",
        choices=ACCELERATORS,
        default="auto",
        help="where to compute (default: %(default)s, a TPU or GPU if there is one)",
    )
