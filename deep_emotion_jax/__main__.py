"""python -m deep_emotion_jax COMMAND: what can be done with a trained network.

Every command is a module `cli.<command>` with `configure(parser)`, which adds its arguments,
and `run(arguments)`, which returns the exit code. What takes long to import is imported in `run`.

Exit codes: 0 done; 1 done, but for files that could not be read; 2 a mistake in the arguments or
the settings; 130 interrupted.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from deep_emotion_jax.errors import UserError

COMMANDS = {
    "predict": "name the expressions in pictures, videos or before the webcam",
    "demo": "serve a web page to try it on",
    "export": "write a network for other programs: ONNX, StableHLO, or a web page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deep_emotion_jax", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"deep_emotion_jax.cli.{name}")
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has had enough (`| head`); without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
