"""A folder with one subfolder of pictures per class, as a TFDS dataset."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm.auto import tqdm

from datasets import common
from deep_emotion_jax.data.crop import crop
from deep_emotion_jax.data.decoding import PICTURE_SUFFIXES, read_picture
from deep_emotion_jax.data.detectors import FaceDetector
from deep_emotion_jax.data.folders import is_hidden, walk
from deep_emotion_jax.data.folds import hash_order
from deep_emotion_jax.errors import UserError

SPLITS = ("train", "validation", "test")
# Common names of the splits' folders, matched in any case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SHARE = 0.15  # of every class for validation, and the same for testing
INSTRUCTIONS = """\
Set manual_dir to a folder with one subfolder of pictures per class (happy/*.jpg, sad/*.jpg, ...),
or with subfolders train, validation (or val, valid) and test that contain such subfolders.
"""
Files = dict[str, dict[str, Path]]
"""Split -> key (the path below the folder) -> file, in order."""


@dataclasses.dataclass
class FolderConfig(tfds.core.BuilderConfig):
    """The config of a folder; its name changes with the files, so prepared data are never stale.

    Attributes:
      labels: the classes.
      detector: "none" uses the central square of a picture, "builtin" its largest face, cropped as
        in `predict`.
    """

    labels: tuple[str, ...] = ()
    detector: str = "none"


class Builder(tfds.core.GeneratorBasedBuilder):
    """Pictures in subfolders, 48 x 48 grey; use `Builder(config=read_config(folder))`.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`, the subfolder; `key`, the path below
    the folder, `happy/a.jpg`; `subject` and `sequence`, "", as they are unknown.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=common.face_features(self.builder_config.labels),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = common.manual_path(dl_manager, INSTRUCTIONS)
        divided = divide(find_pictures(path), path)
        return {
            split: self._generate_examples(path, split, files)
            for split, files in divided.items()
            if files
        }

    def _generate_examples(
        self, root: Path, split: str, files: dict[str, Path]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        read = _read_face if self.builder_config.detector == "builtin" else _read_square
        unreadable, missing = 0, set(self.builder_config.labels)
        for key, path in tqdm(
            files.items(),
            desc=f"Reading {split}",
            unit=" images",
            leave=False,
            disable=None,  # No bar in a log file.
        ):
            try:
                face = read(path)
            except UserError as error:
                logging.warning("skipped: %s", error)
                unreadable += 1
                continue
            label = _label(key)
            missing.discard(label)
            yield (
                key,
                {
                    "image": common.encode_png(face),
                    "label": label,
                    "key": key,
                    "subject": "",
                    "sequence": "",
                },
            )
        if unreadable:
            logging.warning(
                "%d of %d %s images in %s cannot be read", unreadable, len(files), split, root
            )
        if unreadable == len(files) or (split == "train" and missing):
            raise UserError(
                f"{root}: no {split} image of {', '.join(sorted(missing))} can be read; replace "
                "the images listed above"
            )


def _read_square(path: Path) -> np.ndarray:
    return common.face_image(read_picture(path))


def _read_face(path: Path) -> np.ndarray:
    picture = read_picture(path)
    faces = _detector()(picture)
    if not faces:
        raise UserError(f"no face found in {path}")
    return crop(picture, faces[0].box, faces[0].roll)


@functools.cache
def _detector() -> FaceDetector:
    return FaceDetector()


def read_config(root: Path | None, detector: str = "none") -> FolderConfig:
    """Returns the config of a folder: its classes, and a name that depends on its files.

    Args:
      root: the folder.
      detector: see `FolderConfig`.

    Raises:
      UserError: if the folder is not given, or does not have the layout of `INSTRUCTIONS`.
    """
    if root is None:
        raise UserError(f"no manual_dir was given.\n{INSTRUCTIONS}")
    divided = divide(find_pictures(root), root)
    # Without a detector, the name is the same as in older versions.
    digest = hashlib.sha256(b"" if detector == "none" else detector.encode())
    for files in divided.values():
        for key, path in files.items():
            status = path.stat()
            digest.update(f"{key}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    labels = sorted({_label(key) for files in divided.values() for key in files})
    return FolderConfig(name=digest.hexdigest()[:16], labels=tuple(labels), detector=detector)


def find_pictures(root: Path) -> Files:
    """Finds the pictures of a folder by split, or all as split "" if it has no split folders.

    Raises:
      UserError: if there is no folder, there are no class folders, or one of them has no picture.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder.\n{INSTRUCTIONS}")
    top = _below_wrappers(root)
    folders = _folders(top)
    splits = _split_folders(top, folders)
    found: Files = {}
    for split, folder in splits.items():
        found[split] = {}
        for class_folder in folders if split == "" else _folders(folder):
            found[split] |= _pictures(class_folder)
        if len({_label(key) for key in found[split]}) < 2 and split in ("", "train"):
            raise UserError(f"{folder} has fewer than two class folders.\n{INSTRUCTIONS}")
    return found


def _below_wrappers(root: Path) -> Path:
    """Returns the folder, or the only folder in it, as in mine/archive/train/..., repeatedly."""
    seen = set()
    while len(folders := _folders(root)) == 1 and len(_folders(folders[0])) > 1:
        if root.resolve() in seen:  # a cycle of links
            break
        seen.add(root.resolve())
        root = folders[0]
    return root


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Returns split -> folder, or "" -> root if the folders are classes.

    Raises:
      UserError: if only some folders are splits, or two are the same split.
    """
    splits: dict[str, Path] = {}
    others = []
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            others.append(folder.name)
        elif splits.setdefault(split, folder) != folder:
            raise UserError(
                f"{root} has two folders for the {split} split, {splits[split].name!r} and "
                f"{folder.name!r}; keep one of them"
            )
    if "train" not in splits:
        return {"": root}
    if others:
        raise UserError(
            f"{root} has the folder {splits['train'].name}, but also {others[0]!r}, which is none "
            f"of {', '.join(SPLIT_NAMES)}; put all classes into train, validation and test, or "
            "rename the folders with these names"
        )
    return {split: splits[split] for split in SPLITS if split in splits}


def _pictures(folder: Path) -> dict[str, Path]:
    """Returns key -> file of a class folder.

    Raises:
      UserError: if it has no picture.
    """
    pictures = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(walk(folder))
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    }
    if not pictures:
        raise UserError(
            f"the class folder {folder} has no picture ({', '.join(PICTURE_SUFFIXES)}); add "
            "pictures or remove it"
        )
    return pictures


def divide(found: Files, root: Path) -> Files:
    """Splits the pictures of each class into train, validation and test by a hash of their keys.

    Split folders are kept; only a missing validation split is taken from train.

    Raises:
      UserError: if a class is too small, or has no training picture.
    """
    whole = found.get("", found.get("train", {}))
    labels = {_label(key) for key in whole}
    for split, files in found.items():
        if unknown := sorted({_label(key) for key in files} - labels):
            raise UserError(f"{root}: class {unknown[0]!r} is in {split}, but not in train")
    if "validation" in found:
        return {split: found[split] for split in SPLITS if split in found}
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for label in sorted(labels):
        keys = [key for key in whole if _label(key) == label]
        if len(keys) < 2:
            raise UserError(
                f"{root}: class {label!r} has one picture; it needs two, one for training and one "
                "for validation"
            )
        order = hash_order(keys, 0)
        validated = max(1, round(SHARE * len(keys)))
        tested = round(SHARE * len(keys)) if "" in found else 0
        tested = min(tested, len(keys) - validated - 1)
        for split, index in zip(
            ("validation", "test", "train"),
            np.split(order, [validated, validated + tested]),
            strict=True,
        ):
            parts[split] += [keys[i] for i in index]
    divided = {split: {key: whole[key] for key in sorted(keys)} for split, keys in parts.items()}
    return divided | ({"test": found["test"]} if "test" in found else {})


def _folders(root: Path) -> list[Path]:
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not is_hidden(path.name) and not path.name.startswith("__")
    )


def _label(key: str) -> str:
    return key.split("/")[0]
