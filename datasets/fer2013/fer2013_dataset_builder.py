"""FER-2013 as a TFDS dataset, from any of the files in which it is distributed."""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm.auto import tqdm

from datasets import common
from datasets.fer2013 import ferplus, sources
from deep_emotion_jax.errors import UserError

_SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}


class Builder(tfds.core.GeneratorBasedBuilder):
    """35,887 grey 48 x 48 faces in 7 expressions, or the FER+ majority labels in 8.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`; `key`, `<class>/<file name without
    suffix>` in an archive or `row_<number>`, from 0, in a CSV file; `copy_of`, the key of the first
    face with the same pixels, or "" if there is none before; with FER+ also `votes`, int64 (10,),
    and `soft_label`, float32 (8,), the votes as probabilities.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First release.",
        "1.1.0": "copy_of; FER+ from Kaggle's archive, with soft labels.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Get FER-2013 with a free Kaggle account and set manual_dir to its file, or to a folder with it:
  archive.zip, unchanged, from
    https://www.kaggle.com/datasets/msambare/fer2013
  or fer2013.tar.gz or icml_face_data.csv from
    https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge
For the ferplus config, put fer2013new.csv beside it, from
    https://github.com/microsoft/FERPlus
"""
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="default", description="The challenge's 7 labels."),
        tfds.core.BuilderConfig(
            name="ferplus", description="FER+'s majority of 10 votes, 8 labels."
        ),
    ]
    SPLIT_COUNTS: ClassVar[dict[str, int]] = {"train": 28_709, "validation": 3_589, "test": 3_589}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(sources.SIZE, sources.SIZE, 1)),
            "label": tfds.features.ClassLabel(names=sources.LABELS),
            "key": tfds.features.Text(),
            "copy_of": tfds.features.Text(),
        }
        if self.builder_config.name == "ferplus":
            features["label"] = tfds.features.ClassLabel(names=ferplus.LABELS)
            features["votes"] = tfds.features.Tensor(shape=(10,), dtype=np.int64)
            features["soft_label"] = tfds.features.Tensor(shape=(8,), dtype=np.float32)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://arxiv.org/abs/1307.0414",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        path = common.manual_path(dl_manager, self.MANUAL_DOWNLOAD_INSTRUCTIONS)
        source = sources.find(path)
        logging.info("Reading FER-2013 from %s", source)
        # Reads and checks everything, still encoded (60 MB), before anything is written, because
        # the splits are only known at the end.
        found: Counter[str] = Counter()
        splits: dict[str, list[dict[str, Any]]] = {split: [] for split in _SPLITS.values()}
        for face, labels in tqdm(
            self._labelled(source, path),
            desc=f"Reading {source.name}",
            total=sum(self.SPLIT_COUNTS.values()),
            unit=" images",
            leave=False,
            disable=None,  # No bar in a log file.
        ):
            split = _SPLITS[face.usage]
            found[split] += 1
            if labels["label"] is not None:
                image = io.BytesIO(face.image)
                splits[split].append(
                    {"image": image, "key": face.key, "pixels": face.pixels, **labels}
                )
        common.check_counts(source, found, self.SPLIT_COUNTS)
        mark_copies(splits)
        return {
            split: self._generate_examples(examples)
            for split, examples in splits.items()
            if examples
        }

    def _labelled(self, source: Path, path: Path) -> Iterator[tuple[sources.Face, dict[str, Any]]]:
        """Yields every face with its label features; the label is None without a FER+ majority."""
        faces = sources.read(source)
        if self.builder_config.name == "default":
            for face in faces:
                yield face, {"label": face.label}
            return
        votes_path = ferplus.find(path)
        by_row = sources.has_row_order(source)
        if not by_row and sources.is_training_only(source):
            raise UserError(
                f"FER+ identifies faces by their row in the challenge's file, which {source} does "
                "not contain; give fer2013.tar.gz, fer2013.csv or icml_face_data.csv instead."
            )
        join = ferplus.join if by_row else ferplus.join_by_name
        for face, votes in join(faces, source, votes_path):
            soft = ferplus.distribution(np.array(votes))
            yield face, {"label": ferplus.majority(votes), "votes": votes, "soft_label": soft}

    def _generate_examples(
        self, examples: list[dict[str, Any]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for example in examples:
            yield example["key"], example


def mark_copies(splits: dict[str, list[dict[str, Any]]]) -> None:
    """Replaces `pixels` by `copy_of`: the key of the first face with the same pixels, or "".

    Args:
      splits: split -> examples; copies are searched in the same and in earlier splits.
    """
    first: dict[bytes, str] = {}
    for examples in splits.values():
        for example in examples:
            original = first.setdefault(example.pop("pixels"), example["key"])
            example["copy_of"] = "" if original == example["key"] else original
