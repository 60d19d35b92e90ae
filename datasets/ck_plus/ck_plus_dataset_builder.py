"""CK+ as a TFDS dataset, from the original distribution or from the CK+48 folders."""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm.auto import tqdm

from datasets import common
from datasets.ck_plus import faces, sources
from deep_emotion_jax.data.folds import Protocols, random_split
from deep_emotion_jax.errors import UserError


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """A choice of frames and classes.

    Attributes:
      frames: number of last frames of a sequence that have its label.
      labels: the classes; if neutral is one of them, the first frame of each sequence is neutral.
    """

    frames: int = 3
    labels: tuple[str, ...] = sources.LABELS[:7]


class Builder(tfds.core.GeneratorBasedBuilder):
    """Faces of 118 people who pose an expression: 327 labelled sequences, 48 x 48 grey.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`; `key`, the frame's file name without
    suffix, `S010_004_00000019`; `subject`, `S010`; `sequence`, `S010_004`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Ask for CK+ at http://www.jeffcohn.net/Resources/ and set manual_dir to the folder with these files,
as downloaded or unpacked:
  extended-cohn-kanade-images.zip  (cohn-kanade-images/S###/###/*.png)
  Emotion_labels.zip               (Emotion/S###/###/*_emotion.txt)
  Landmarks.zip                    (Landmarks/S###/###/*_landmarks.txt; better than a detector)
or to CK+48 or another copy with faces in class folders, of any size, with one or three frames per
sequence, as a folder or zip (CK+48/<emotion>/S###_###_########.png).
"""
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="last3", description="Last 3 frames, 7 classes with contempt: 981 images."),
        Config(
            name="last3_6",
            description="Last 3 frames, 6 classes without contempt: 927 images.",
            labels=sources.LABELS[:6],
        ),
        Config(name="apex", description="Last frame, 7 classes: 327 images.", frames=1),
        Config(
            name="neutral8",
            description="Last 3 frames, and the first frame as neutral, 8 classes: 1,308 images.",
            labels=sources.LABELS,
        ),
    ]
    COUNTS: ClassVar[dict[str, int]] = {"subjects": 118, "sequences": 327, "frames": 981}
    # The paper: 70 % for training, 10 % for validation, 20 % for the test.
    PROTOCOLS: ClassVar[Protocols] = Protocols(
        paper=partial(random_split, validation=0.1, test=0.2), subject_folds=10
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=common.face_features(self.builder_config.labels),
            supervised_keys=("image", "label"),
            homepage="http://www.jeffcohn.net/Resources/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = common.manual_path(dl_manager, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        logging.info("Reading CK+ from %s", path)
        with self._open(path) as source:
            self._check(path, source)
        return {"train": self._generate_examples(path)}

    def _open(self, path: Path) -> contextlib.AbstractContextManager[sources.Source]:
        return sources.open_source(path, with_neutral="neutral" in self.builder_config.labels)

    def _check(self, path: Path, source: sources.Source) -> None:
        has_neutral = any(sequence.neutral for sequence in source.sequences)
        if "neutral" in self.builder_config.labels and not has_neutral:
            raise UserError(
                f"{path} is CK+48, which has no first frames to use as neutral; use the configs "
                "last3, last3_6 or apex, or give the original distribution."
            )
        # Counts all frames of CK+48, so that surplus ones are detected.
        frames = [s.frames if source.is_cropped else s.frames[-3:] for s in source.sequences]
        found = {
            "subjects": len({sequence.subject for sequence in source.sequences}),
            "sequences": len(source.sequences),
            "frames": sum(map(len, frames)),
        }
        expected = dict(self.COUNTS)
        if source.is_cropped and found["frames"] == expected["sequences"]:
            expected["frames"] = expected["sequences"]
            if self.builder_config.frames > 1:
                logging.warning("%s has only one frame per sequence; all are used", path)
        common.check_totals(path, found, expected)

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        labels = self.builder_config.labels
        size: tuple[int, ...] | None = None
        with self._open(path) as source:
            for sequence in tqdm(
                source.sequences,
                desc="Reading CK+",
                unit=" sequences",
                leave=False,
                disable=None,  # No bar in a log file.
            ):
                if sequence.label not in labels:
                    continue
                chosen = [
                    (f, sequence.label) for f in sequence.frames[-self.builder_config.frames :]
                ]
                if "neutral" in labels and sequence.neutral:
                    chosen.insert(0, (sequence.neutral, "neutral"))
                frames, names = zip(*chosen, strict=True)
                pictures = [common.read_image(frame.read(), frame.path) for frame in frames]
                if source.is_cropped:
                    size = size or pictures[0].shape[:2]
                    _check_sizes(frames, pictures, size)
                # Pictures that are not square were not cropped to the face.
                if size and size[0] == size[1]:
                    images = [common.face_image(picture) for picture in pictures]
                else:
                    images = _crop(sequence.name, frames, pictures)
                for frame, label, image in zip(frames, names, images, strict=True):
                    yield (
                        frame.key,
                        {
                            "image": common.encode_png(image),
                            "label": label,
                            "key": frame.key,
                            "subject": sequence.subject,
                            "sequence": sequence.name,
                        },
                    )


def _check_sizes(
    frames: tuple[sources.Frame, ...], pictures: list[np.ndarray], size: tuple[int, ...]
) -> None:
    for frame, picture in zip(frames, pictures, strict=True):
        if picture.shape[:2] != size:
            raise UserError(
                f"{frame.path} has {picture.shape[1]} x {picture.shape[0]} pixels, not {size[1]} x "
                f"{size[0]} like the others; give only one copy of CK+."
            )


def _landmark_square(path: Path, read: sources.Read, image: np.ndarray) -> common.Square:
    square = faces.landmark_square(faces.read_landmarks(read(), path))
    if not square.meets(*image.shape[:2]):
        raise UserError(
            f"{path} has eyes outside the picture of {image.shape[1]} x {image.shape[0]} pixels; "
            "download it again."
        )
    return square


def _crop(
    name: str, frames: tuple[sources.Frame, ...], images: list[np.ndarray]
) -> list[np.ndarray]:
    """Crops the faces of a sequence's frames, by landmarks if available."""
    squares = [
        _landmark_square(*frame.landmarks, image)
        if frame.landmarks
        else faces.detect_square(common.to_grey(image))
        for frame, image in zip(frames, images, strict=True)
    ]
    # People hardly move within a sequence, so the last square found serves frames without one.
    found = [square for square in squares if square]
    if not found:
        raise UserError(
            f"no face found in {frames[-1].path}, nor in the other frames used of {name}; put the "
            "Landmarks folder or Landmarks.zip of the distribution beside the frames."
        )
    return [
        common.face_image(image, square or found[-1])
        for image, square in zip(images, squares, strict=True)
    ]
