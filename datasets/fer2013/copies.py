"""Counts the duplicate faces of FER-2013, by their decoded pixels.

python -m datasets.fer2013.copies MANUAL_DIR [DATA_DIR]
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets import arrays, common
from deep_emotion_jax.data.folds import join
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError


def count(splits: Mapping[str, Split]) -> dict[str, int]:
    """Counts copies in a dataset that marks them.

    Args:
      splits: "train" and others, in the dataset's order.

    Returns:
      Description -> count.
    """
    data = join(dict(splits))
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (key, copy) in enumerate(zip(data.keys, data.copies or data.keys, strict=True)):
        groups[copy or key].append(place)
    several = [group for group in groups.values() if len(group) > 1]
    counts = {
        "faces": len(data.keys),
        "groups of identical faces": len(several),
        "surplus copies": sum(len(group) - 1 for group in several),
        "groups with several labels": sum(len({*data.labels[group]}) > 1 for group in several),
    }
    train = np.arange(len(splits["train"].keys))
    counts["surplus copies within train"] = len(train) - len(
        {name for name, group in groups.items() if group[0] < len(train)}
    )
    is_copy = data.copies_of(train)
    first = len(train)
    for name, split in splits.items():
        if name != "train":
            places = np.arange(first, first := first + len(split.keys))
            copied = set(places[is_copy[places]].tolist())
            counts[f"{name} faces also in train"] = len(copied)
            counts[f"{name} faces also in train with the same label"] = sum(
                any(i < len(train) and data.labels[i] == data.labels[place] for i in group)
                for group in several
                for place in group
                if place in copied
            )
    return counts


def _main(manual_dir: str, data_dir: str) -> None:
    from datasets.fer2013.fer2013_dataset_builder import Builder

    builder = Builder(data_dir=data_dir)
    common.prepare(builder, Path(manual_dir))
    for name, number in count(
        {split: arrays.load(builder, split) for split in builder.info.splits}
    ).items():
        print(f"{number:6} {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count identical faces in FER-2013.")
    parser.add_argument("manual_dir", help="a source of FER-2013, see the README beside this file")
    parser.add_argument("data_dir", nargs="?", default="data", help="holds prepared datasets")
    options = parser.parse_args()
    try:
        _main(options.manual_dir, options.data_dir)
    except UserError as error:
        sys.exit(f"error: {error}")
