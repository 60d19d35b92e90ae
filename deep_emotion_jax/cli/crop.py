"""Crop the faces of pictures for training, in the same way as predict.

Writes the largest face of each picture as a grey PNG of 48 x 48 pixels, under the same path below
OUT, so that class folders are kept. Pictures without a face are reported and skipped.

Example:
  deep-emotion crop photos cuts

exit codes: 0 all pictures were cropped, 1 some were skipped, 2 invalid arguments.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deep_emotion_jax.cli.options import add_device, path
from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    from deep_emotion_jax.data.pictures import Picture


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=path, metavar="IN", help="a picture, a video or a folder")
    parser.add_argument("target", type=path, metavar="OUT", help="folder for the cropped faces")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Crop the faces; the module's docstring lists the exit codes.

    Raises:
      UserError: if OUT is IN or in it, or cannot be written.
    """
    from PIL import Image
    from tqdm import tqdm

    from deep_emotion_jax.data import pictures
    from deep_emotion_jax.data.crop import crop
    from deep_emotion_jax.data.detectors import FaceDetector
    from deep_emotion_jax.runtime.devices import choose_devices

    source, target = arguments.source, arguments.target
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} is in {source}; give another OUT")
    choose_devices(arguments.device)
    detector = FaceDetector()
    written = skipped = 0

    def report(error: UserError) -> None:
        nonlocal skipped
        skipped += 1
        tqdm.write(f"skipped: {error}", file=sys.stderr)

    for picture in tqdm(
        pictures.read([str(source)], report), unit=" pictures", disable=None, leave=False
    ):
        faces = detector(picture.pixels)
        if not faces:
            report(UserError(f"no face found in {picture.source}"))
            continue
        file = _target(picture, source, target)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop(picture.pixels, faces[0].box, faces[0].roll)).save(file)
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}") from error
        written += 1
    print(f"{written} face{'' if written == 1 else 's'} in {target}, {skipped} skipped")
    return 1 if skipped else 0


def _target(picture: "Picture", source: Path, target: Path) -> Path:
    """Return the path of a cropped face; keeps the suffix, since a.jpg and a.png may both exist."""
    file = Path(picture.source)
    below = file.relative_to(source) if source.is_dir() else Path(file.name)
    frame = "" if picture.frame is None else f".{picture.frame:06}"
    return target / below.with_name(f"{below.name}{frame}.png")
