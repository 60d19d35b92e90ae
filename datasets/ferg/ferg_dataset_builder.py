"""FERG-DB as a TFDS dataset."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging
from tqdm.auto import tqdm

from datasets import archives, common
from deep_emotion_jax.constants import LABELS
from deep_emotion_jax.data.folds import Protocols, per_class_split
from deep_emotion_jax.errors import UserError

_EXPRESSIONS = dict(
    zip(("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"), LABELS, strict=True)
)
_CHARACTERS = ("aia", "bonnie", "jules", "malcolm", "mery", "ray")
_FOLDERS = {f"{c}_{e}": (c, label) for c in _CHARACTERS for e, label in _EXPRESSIONS.items()}


class Builder(tfds.core.GeneratorBasedBuilder):
    """55,767 renders of 6 cartoon characters in 7 expressions, 48 x 48 grey.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`; `key`, `aia_anger/aia_anger_1`;
    `subject`, the character, `aia`; `sequence`, "", as the database does not mark near-copies.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Ask for FERG-DB at https://grail.cs.washington.edu/projects/deepexpr/ferg-2d-db.html and set
manual_dir to its zip archive, or to the folder with
FERG_DB_256/<character>/<character>_<expression>/*.png.
"""
    COUNTS: ClassVar[dict[str, int]] = {"characters": 6, "images": 55_767}
    # The paper: about 34,000 for training, 14,000 for validation, 7,000 for the test.
    PROTOCOLS: ClassVar[Protocols] = Protocols(
        paper=partial(per_class_split, validation=14_000, test_per_class=1000)
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=common.face_features(LABELS),
            supervised_keys=("image", "label"),
            homepage="https://grail.cs.washington.edu/projects/deepexpr/ferg-2d-db.html",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = common.manual_path(dl_manager, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        logging.info("Reading FERG-DB from %s", path)
        with archives.open_files(path, (".png",)) as images:
            found = archives.by_key(images, _key)
        if not found:
            expected = "FERG_DB_256/<character>/<character>_<expression>/*.png"
            raise archives.nothing_found(path, expected, "ferg")
        characters = len({_FOLDERS[file.parent.name.lower()][0] for file in found.values()})
        common.check_totals(path, {"characters": characters, "images": len(found)}, self.COUNTS)
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for file, content in tqdm(
            archives.read_files(path, (".png",)),
            desc="Reading FERG-DB",
            total=self.COUNTS["images"],
            unit=" images",
            leave=False,
            disable=None,  # No bar in a log file.
        ):
            image = common.read_image(content, file)
            if image.shape[0] != image.shape[1]:
                raise UserError(
                    f"{file} has {image.shape[1]} x {image.shape[0]} pixels and is not square; "
                    "give the original pictures."
                )
            character, label = _FOLDERS[file.parent.name.lower()]
            key = _key(file)
            yield (
                key,
                {
                    "image": common.encode_png(common.face_image(image)),
                    "label": label,
                    "key": key,
                    "subject": character,
                    "sequence": "",
                },
            )


def _key(file: Path) -> str:
    folder = file.parent.name.lower()
    if folder not in _FOLDERS:
        raise UserError(
            f"{file} is in folder {file.parent.name!r}, not in <character>_<expression> of "
            f"{', '.join(_CHARACTERS)} and {', '.join(_EXPRESSIONS)}."
        )
    return f"{folder}/{file.stem}"
