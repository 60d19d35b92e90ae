"""Write a network for use without this package: ONNX, StableHLO, or a web page.

Every exported network is run before it is written and must reproduce the logits. --onnx also writes
the face detector (fer.detector.onnx beside fer.onnx), and fer.onnx.json with classes, temperature
and the settings for finding and cropping faces; docs/deploy.md has programs that use them.
--stablehlo also writes FILE.json. --web writes a page that finds faces in pictures and camera
images. It needs npm (Node.js) and a network connection once, to download ONNX Runtime for the
browser. Any static server can serve the page, such as python -m http.server; it contacts no other
host.

Needs the extra "export": in the project's folder, run pip install ".[export]".

Example:
  deep-emotion export --onnx fer.onnx --web site
"""

import argparse
import json
from pathlib import Path

from deep_emotion_jax.cli.options import add_model, path
from deep_emotion_jax.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_model(parser)
    parser.add_argument(
        "--onnx", type=path, metavar="FILE", help="write an ONNX file (default: no)"
    )
    parser.add_argument(
        "--stablehlo",
        type=path,
        metavar="FILE",
        help="write a program for jax.export.deserialize (default: no)",
    )
    parser.add_argument(
        "--web",
        type=path,
        metavar="DIR",
        help="write a web page that runs the network in the browser (default: no)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files that the arguments select.

    Raises:
      UserError: without a file to write, or if the network cannot be loaded or exported, the extra
        or npm is missing, or a file cannot be written.
    """
    if not (arguments.onnx or arguments.stablehlo or arguments.web):
        raise UserError("nothing to write: give --onnx FILE, --stablehlo FILE or --web DIR")

    from deep_emotion_jax.export import programs
    from deep_emotion_jax.export.webpage import write_page
    from deep_emotion_jax.pretrained import load_pretrained

    trained = load_pretrained(arguments.model)
    try:
        if arguments.onnx:
            detector = arguments.onnx.with_name(f"{arguments.onnx.stem}.detector.onnx")
            _write(arguments.onnx, programs.to_onnx(trained))
            _write(detector, programs.detector_to_onnx())
            files = {"network": arguments.onnx.name, "detector": detector.name}
            text = json.dumps({"files": files, **programs.deployment(trained)}, indent=2)
            _write(Path(f"{arguments.onnx}.json"), text.encode())
        if arguments.stablehlo:
            _write(arguments.stablehlo, programs.to_stablehlo(trained))
            text = json.dumps(programs.description(trained), indent=2)
            _write(Path(f"{arguments.stablehlo}.json"), text.encode())
        if arguments.web:
            write_page(trained, arguments.web)
            print(f"{arguments.web}: python -m http.server --bind 127.0.0.1 -d {arguments.web}")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    return 0


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    print(f"{path}: {len(data):,} bytes")
