"""Serves a web page on this computer: a picture or the webcam in, expression and reasons out.

Needs Gradio: pip install 'deep-emotion-jax[demo]'. Nothing leaves the computer.
"""

import argparse
import os
import sys
import tempfile

from deep_emotion_jax.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="PATH",
        help="a .safetensors file to choose from, besides the package's networks; may be repeated",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this computer alone)",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until it is interrupted.

    Raises:
      UserError: without Gradio, or if a network cannot be loaded or nothing can listen there.
    """
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"port {arguments.port} does not exist; choose one from 1 to 65535")
    with tempfile.TemporaryDirectory(prefix="deep-emotion-demo-") as folder:
        from deep_emotion_jax.data.detectors import FaceDetector
        from deep_emotion_jax.inference.predictor import Predictor
        from deep_emotion_jax.pretrained import pretrained_names

        # Before Gradio, whose import takes long.
        detector = FaceDetector()
        names = [*pretrained_names(), *arguments.model]
        predictors = {name: Predictor.from_pretrained(name, detector) for name in names}
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from deep_emotion_jax.inference import demo
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise UserError(
                "the demo needs Gradio: pip install 'deep-emotion-jax[demo]'"
            ) from error
        if arguments.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"warning: other computers can reach the page at {arguments.host}, and pictures "
                "travel to it unencrypted",
                file=sys.stderr,
            )
        demo.serve(demo.build(predictors), arguments.host, arguments.port)
    return 0
