"""Trains, validates and reports Deep-Emotion.

Example:
  python main.py --config configs/fer2013.py --config.manual_dir=PATH --workdir runs/fer2013

All results go to --workdir; the same command resumes a training that was interrupted. SIGTERM and
Ctrl-C save the training and end with exit code 75; see docs/reliability.md.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from configs import command_line


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line, by default of this process: the options, and changed settings."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=command_line.SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command_line.add_options(parser)
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="resume a workdir of another config or other data; default: refuse",
    )
    parser.add_argument(
        "--accept_changes", dest="accept_changes", action="store_true", help=argparse.SUPPRESS
    )  # its spelling in version 0.1
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes that train together, see docs/scaling.md; "
        "default: one process",
    )
    return parser.parse_known_args(arguments)


def train(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Trains the experiment of the command line."""
    from datasets.load import load_dataset
    from deep_emotion_jax.runtime import multihost
    from deep_emotion_jax.runtime.devices import choose_devices
    from deep_emotion_jax.training.experiment import run

    config, name = command_line.read_config(options.config, overrides)
    with multihost.joined() if options.distributed else nullcontext():
        choose_devices(config.accelerator, config.num_devices)  # fails before the data are read
        dataset = load_dataset(config)
        workdir = options.workdir or Path("runs", name)
        run(config, dataset, workdir, accept_changes=options.accept_changes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options, overrides = parse(arguments)
    # Not above: JAX takes seconds to import, which --help need not wait for.
    from deep_emotion_jax.runtime.command import run_command

    run_command(lambda: train(options, overrides))


if __name__ == "__main__":
    main(sys.argv[1:])
