"""The generated faces of `face.py` as a TFDS dataset, identical on every machine."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tqdm.auto import tqdm

from datasets import common
from datasets.synthetic_faces import face
from datasets.synthetic_faces.drawing import SIZE
from deep_emotion_jax.data.folds import Protocols

_SEED = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """13,300 generated grey 48 x 48 faces of 380 people in 7 expressions, with exact labels.

    Features: `image` uint8 (48, 48, 1) in [0, 255]; `label`; `key`, `<split>_<index>`, where
    `face.draw_example(0, index)` draws the same face; `subject`; `action_units` float32 (15,) in
    [0, 1] in the order of `face.ACTION_UNITS`; `evidence_mask` uint8 (48, 48, 1), 255 for pixels
    that show the expression, else 0.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    SUBJECTS: ClassVar[dict[str, int]] = {"train": 300, "validation": 40, "test": 40}
    PROTOCOLS: ClassVar[Protocols] = Protocols(subject_folds=10)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(SIZE, SIZE, 1))
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": image,
                    "label": tfds.features.ClassLabel(names=face.LABELS),
                    "key": tfds.features.Text(),
                    "subject": tfds.features.Text(),
                    "action_units": tfds.features.Tensor(
                        shape=(len(face.ACTION_UNITS),), dtype=np.float32
                    ),
                    "evidence_mask": image,
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing to download.
        splits, first = {}, 0
        for split, subjects in self.SUBJECTS.items():
            last = first + subjects * face.FACES_PER_SUBJECT
            splits[split] = self._generate_examples(split, range(first, last))
            first = last
        return splits

    def _generate_examples(
        self, split: str, indices: range
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for index in tqdm(
            indices,
            desc=f"Drawing {split}",
            unit=" faces",
            leave=False,
            disable=None,  # No bar in a log file.
        ):
            example = face.draw_example(_SEED, index)
            key = f"{split}_{index:05d}"
            yield (
                key,
                {
                    "image": common.encode_png(example.image),
                    "label": example.label,
                    "key": key,
                    "subject": f"subject_{example.subject:03d}",
                    "action_units": example.action_units,
                    "evidence_mask": common.encode_png(
                        255 * example.evidence_mask.astype(np.uint8)
                    ),
                },
            )
