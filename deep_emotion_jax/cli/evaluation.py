"""The options of eval.py's commands."""

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path

from deep_emotion_jax.cli.options import HelpFormatter, add_device, add_model, network, path
from deep_emotion_jax.constants import VIEWS

SPLITS = ("train", "validation", "test", "all")


def add_command(
    commands: "argparse._SubParsersAction", name: str, function: Callable[..., None]
) -> argparse.ArgumentParser:
    """Add a command with the docstring of its function as description."""
    summary, _, rest = (function.__doc__ or "").partition("\n")
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n{textwrap.dedent(rest)}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(function=function)
    return command


def add_network(command: argparse.ArgumentParser) -> None:
    """Add the run or the network to score."""
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=path, metavar="FOLDER", help="folder of a finished run")
    add_model(which, default=None)
    _add_dataset(command)


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dataset", default="fer2013", help="images for --model (default: %(default)s)"
    )


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the images to score and the device."""
    command.add_argument(
        "--split", choices=SPLITS, default="test", help="images to score (default: %(default)s)"
    )
    command.add_argument(
        "--dataset-config",
        metavar="NAME",
        help="variant of the dataset, such as ferplus (default: that of the run, else the first)",
    )
    command.add_argument(
        "--data-dir",
        type=path,
        metavar="FOLDER",
        help="prepared data (default: that of the run, else data)",
    )
    command.add_argument(
        "--manual-dir",
        type=path,
        metavar="PATH",
        help="raw data, if not yet prepared (default: that of the run)",
    )
    command.add_argument(
        "--detector",
        choices=("none", "builtin"),
        help="for --dataset folder: score the central square of each picture (none), or its "
        "largest face (default: that of the run, else none)",
    )
    add_device(command)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """Add the other options of `evaluate`."""
    views = command.add_mutually_exclusive_group()
    views.add_argument(
        "--tta",
        choices=tuple(VIEWS),
        default="none",
        help="average the probabilities over views of each face: its mirror image, shifts by 3 "
        "pixels to each corner, or both (default: %(default)s)",
    )
    views.add_argument(
        "--flip", dest="tta", action="store_const", const="mirror", help="short for --tta mirror"
    )
    command.add_argument(
        "--predictions", type=path, metavar="FILE", help="write predictions as CSV (default: no)"
    )
    command.add_argument(
        "--json", type=path, metavar="FILE", help="write scores for `table --json` (default: no)"
    )
    command.add_argument(
        "--classes",
        type=path,
        metavar="FILE",
        help="JSON object from class names of the images to those of the network, or null to leave "
        "a class out (default: the same names)",
    )


def add_calibrate(command: argparse.ArgumentParser) -> None:
    """Add the options of `calibrate`."""
    add_model(command, default=None, required=True)
    _add_dataset(command)
    add_data(command)
    command.set_defaults(split="validation")
    command.add_argument(
        "--save", type=path, metavar="FILE", help="write the calibrated network (default: no)"
    )


def add_interpolate(command: argparse.ArgumentParser) -> None:
    """Add the options of `interpolate`."""
    command.add_argument(
        "--models",
        type=network,
        nargs=2,
        required=True,
        metavar="NAME_OR_PATH",
        help="a network of the package or a .safetensors file, and a fine-tuned copy of it",
    )
    command.add_argument(
        "--share", type=float, default=0.5, help="share of the second (default: %(default)s)"
    )
    command.add_argument(
        "--save", type=path, required=True, metavar="FILE", help="where to write the network"
    )


def add_robustness(command: argparse.ArgumentParser) -> None:
    """Add the options of `robustness`."""
    command.add_argument(
        "--workdirs",
        type=path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders of finished runs",
    )
    command.add_argument(
        "--out", type=path, required=True, metavar="FOLDER", help="folder for the results"
    )
    add_data(command)


def add_table(command: argparse.ArgumentParser) -> None:
    """Add the options of `table`."""
    command.add_argument(
        "--runs",
        type=path,
        metavar="FOLDER",
        default=Path("runs"),
        help="folder of finished runs (default: %(default)s)",
    )
    command.add_argument(
        "--all", action="store_true", help="list the paper's results without a run (default: no)"
    )
    command.add_argument(
        "--json",
        type=path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="files of evaluate --json, or a summary.json (default: none)",
    )
    command.add_argument(
        "--readme", action="store_true", help="rewrite the table of README.md (default: no)"
    )
