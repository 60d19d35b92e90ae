"""Use a trained network: predict, serve a demo page, or export it.

Example:
  deep-emotion predict photo.jpg --save out

Exit codes: 0 success; 1 some files could not be read; 2 invalid arguments or settings; 130
interrupted.
"""

# This is the console script `deep-emotion`, also python -m deep_emotion_jax. Each command is a
# module of `cli` with `configure(parser)`, which adds its arguments, and `run(arguments)`, which
# returns the exit code. `run` makes the slow imports, so that --help is fast.

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deep_emotion_jax import __version__
from deep_emotion_jax.cli.options import HelpFormatter
from deep_emotion_jax.errors import UserError

COMMANDS = {
    "predict": "predict the expressions in pictures, videos and the webcam",
    "crop": "crop the faces of pictures, to train on them",
    "demo": "serve a demo page",
    "export": "export a network as ONNX, StableHLO or a web page",
}


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    prog = "python -m deep_emotion_jax" if as_module else "deep-emotion"
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=HelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"deep-emotion {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"deep_emotion_jax.cli.{name}")
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        module.configure(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    arguments = make_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`). Python would print an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
