"""Train Deep-Emotion on one dataset, evaluate it and write the report.

Example:
  python main.py --config configs/fer2013.py --config.manual_dir=PATH --workdir runs/fer2013

All results go to --workdir; the same command resumes an interrupted training. SIGTERM and Ctrl-C
save the training and exit with code 75; see docs/reliability.md.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from configs import command_line


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parses arguments (default: `sys.argv`) into the options and the overrides of settings."""
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
        help="resume --workdir even if its config or data differ; default: refuse",
    )
    parser.add_argument(
        "--accept_changes", dest="accept_changes", action="store_true", help=argparse.SUPPRESS
    )  # the spelling of version 0.1
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of a distributed training, see docs/scaling.md; default: "
        "one process",
    )
    return parser.parse_known_args(arguments)


def train(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Trains the experiment that the command line describes."""
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
    # Imported here so that --help does not wait for JAX.
    from deep_emotion_jax.runtime.command import run_command

    run_command(lambda: train(options, overrides))


if __name__ == "__main__":
    main(sys.argv[1:])
