"""Serve a web page that predicts the expressions in pictures, videos and the webcam.

Pictures stay on this computer. Needs the extra "demo": in the project's folder, run
pip install ".[demo]".

Example:
  deep-emotion demo --port 8000
"""

import argparse
import os
import sys
import tempfile

from deep_emotion_jax.cli.options import add_device, network
from deep_emotion_jax.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--model",
        type=network,
        action="append",
        default=[],
        metavar="PATH",
        help="a .safetensors file to offer besides the package's networks; repeatable (default: "
        "none)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this computer only)",
    )
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: the first free one from 7860)"
    )
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help="password for visitors; any user name is accepted (default: none)",
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted.

    Raises:
      UserError: without Gradio, or if a network cannot be loaded or the address cannot be used.
    """
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port} is not a port; choose one from 1 to 65535")
    if arguments.token == "":
        raise UserError("--token is empty; give the password, or leave --token out")
    with tempfile.TemporaryDirectory(prefix="deep-emotion-demo-") as folder:
        from deep_emotion_jax.constants import DEFAULT_MODEL
        from deep_emotion_jax.data.detectors import FaceDetector
        from deep_emotion_jax.inference.predictor import Predictor
        from deep_emotion_jax.pretrained import pretrained_names
        from deep_emotion_jax.runtime.devices import choose_devices, use_compilation_cache

        choose_devices(arguments.device)
        use_compilation_cache()
        # Before Gradio, which takes long to import.
        detector = FaceDetector()
        names = dict.fromkeys([DEFAULT_MODEL, *pretrained_names(), *arguments.model])
        predictors = {name: Predictor.from_pretrained(name, detector) for name in names}
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from deep_emotion_jax.inference import demo, demo_server
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError(
                'the demo needs Gradio: pip install ".[demo]" in the project\'s folder'
            ) from error
        if arguments.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"warning: other computers can reach the page at {arguments.host}, and pictures "
                "are sent to it unencrypted"
                + ("" if arguments.token else "; --token TEXT sets a password for visitors"),
                file=sys.stderr,
            )
        answers = demo.Answers(predictors)
        page = demo.build(answers)
        demo_server.serve(
            page, arguments.host, arguments.port, arguments.token, warm_up=answers.warm_up
        )
    return 0
