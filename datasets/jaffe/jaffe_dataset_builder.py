"""JAFFE as a TFDS dataset."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from absl import logging

from datasets import archives, common
from datasets.common import Square
from deep_emotion_jax.constants import LABELS
from deep_emotion_jax.data.folds import Protocols, per_class_split
from deep_emotion_jax.errors import UserError

_EXPRESSIONS = dict(zip(("AN", "DI", "FE", "HA", "SA", "SU", "NE"), LABELS, strict=True))
_SUBJECTS = ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")
_NAME = re.compile(
    rf"({'|'.join(_SUBJECTS)})[._ -]*({'|'.join(_EXPRESSIONS)})[._ -]*(\d*)[._ -]*(\d*)[._ -]*",
    re.IGNORECASE,
)
_ENDINGS = (".tiff", ".tif", ".png", ".jpg", ".jpeg")
# Files of old copies are named "MK.FE2.131", with a number but no suffix.
_DIGITS = tuple("0123456789")
_SIZE = 256
# From forehead to chin and from ear to ear; all heads are centred and of similar size.
_FACE = Square(left=48, top=60, side=160)


class Name(NamedTuple):
    """The parts of a file name; `key` is its normalised form, such as KA.AN1.39."""

    key: str
    subject: str
    label: str
    sequence: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """213 pictures of 10 Japanese women in 7 expressions, 48 x 48 grey.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`; `key`, `KA.AN1.39`; `subject`, `KA`;
    `sequence`, `KA.AN`; a subject's two to four shots of one expression are near-copies.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Ask for JAFFE at https://zenodo.org/record/3451524 and set manual_dir to jaffe.zip, or to the folder
with it or with its pictures (KA.AN1.39.tiff and so on).
"""
    COUNTS: ClassVar[dict[str, int]] = {"subjects": 10, "images": 213}
    # The paper: 120 for training, 23 for validation, 70 for the test.
    PROTOCOLS: ClassVar[Protocols] = Protocols(
        paper=partial(per_class_split, validation=23, test_per_class=10)
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=common.face_features(LABELS),
            supervised_keys=("image", "label"),
            homepage="https://zenodo.org/record/3451524",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = common.manual_path(dl_manager, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        logging.info("Reading JAFFE from %s", path)
        with archives.open_files(path, _ENDINGS + _DIGITS) as images:
            found = archives.by_key(filter(_is_picture, images), lambda file: parse_name(file).key)
        if not found:
            raise archives.nothing_found(path, "KA.AN1.39.tiff and so on", "jaffe")
        subjects = len({parse_name(file).subject for file in found.values()})
        common.check_totals(path, {"subjects": subjects, "images": len(found)}, self.COUNTS)
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for file, content in archives.read_files(path, _ENDINGS + _DIGITS):
            if not _is_picture(file):
                continue
            image = common.read_image(content, file)
            if image.shape[:2] != (_SIZE, _SIZE):
                raise UserError(
                    f"{file} has {image.shape[1]} x {image.shape[0]} pixels, not {_SIZE} x "
                    f"{_SIZE}; give the original pictures."
                )
            name = parse_name(file)
            face = common.face_image(image, _FACE)
            yield name.key, {"image": common.encode_png(face), **name._asdict()}


def _is_picture(path: Path) -> bool:
    """Returns whether a file is a picture, by its suffix or its name."""
    return path.name.lower().endswith(_ENDINGS) or bool(_NAME.fullmatch(path.name))


def parse_name(path: Path) -> Name:
    """Parses subject and expression from a file name of any case and separators.

    Raises:
      UserError: if the subject or the expression is not one of JAFFE's.
    """
    has_suffix = path.name.lower().endswith(_ENDINGS)
    match = _NAME.fullmatch(path.stem if has_suffix else path.name)
    if not match:
        raise UserError(
            f"{path} is not named like KA.AN1.39.tiff: one of {', '.join(_SUBJECTS)}, then one of "
            f"{', '.join(_EXPRESSIONS)}, then numbers."
        )
    subject, expression = match[1].upper(), match[2].upper()
    sequence = f"{subject}.{expression}"
    number = f".{match[4]}" if match[4] else ""
    return Name(f"{sequence}{match[3]}{number}", subject, _EXPRESSIONS[expression], sequence)
