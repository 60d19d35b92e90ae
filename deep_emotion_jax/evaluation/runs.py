"""Finished runs, read back, and the images that each of their networks is scored on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deep_emotion_jax.data.folds import Dataset, Run, join, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.weights import Trained, load_model

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FinishedRun:
    """What a workdir holds of a run that has ended.

    Attributes:
      workdir: the folder.
      config: the settings, as in config.json.
      paths: where its data were: `data_dir` and `manual_dir`, if the run has stored them.
      fingerprint: of the data.
      networks: run name -> network.
    """

    workdir: Path
    config: Mapping[str, Any]
    paths: Mapping[str, str]
    fingerprint: str
    networks: Mapping[str, Trained]


class Scored(NamedTuple):
    """A network and the N images it is scored on, with labels in the order of its classes.

    Attributes:
      name: of the network.
      trained: the network.
      faces: the images.
      copies: bool [N], True for images that are also in the training split; None if unknown.
    """

    name: str
    trained: Trained
    faces: Split
    copies: np.ndarray | None = None


def read_run(workdir: Path) -> FinishedRun:
    """Read the settings and the networks of a finished run.

    Raises:
      UserError: if the folder is not that of a run, or a network is missing or damaged.
    """
    try:
        saved = json.loads((workdir / "config.json").read_text())
        config, names, fingerprint = saved["config"], saved["runs"], saved["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir} is not the folder of a run of main.py: {error!r}") from error
    if not (workdir / "summary.json").exists():
        raise UserError(f"the run in {workdir} has not ended; run its command again to resume it")
    networks = {name: load_model(workdir / "weights" / f"{name}.safetensors") for name in names}
    return FinishedRun(workdir, config, saved.get("paths", {}), fingerprint, networks)


def faces_of_run(run: FinishedRun, dataset: Dataset, part: str) -> dict[str, Split]:
    """Return the images of one part of the fold of every network.

    Args:
      run: the run.
      dataset: what it was trained on; for the official protocol, the split `part` is enough.
      part: one of `PARTS`, or "all".

    Raises:
      UserError: if the data are not those of the run, or it has no such images.
    """
    protocol = run.config["protocol"]
    if protocol == "official" or part == "all":
        return dict.fromkeys(run.networks, join(dataset.splits))
    data = join(dataset.splits)
    if data.fingerprint() != run.fingerprint:
        raise UserError(
            f"these are not the data of the run in {run.workdir}, so its test images may be "
            "training images here; give its --data-dir or --manual-dir"
        )
    seeds = {int(name.rsplit("-", 1)[1]) for name in run.networks}
    runs = [Run(fold, seed) for seed in seeds for fold in make_folds(dataset, protocol, seed)]
    places = {each.name: getattr(each.fold, part) for each in runs}
    if not all(len(places[name]) for name in run.networks):
        raise UserError(f"the run in {run.workdir} has no {part} images; choose another --split")
    return {name: data.select(places[name]) for name in run.networks}


def copies_of_training(faces: Split, train: Split) -> np.ndarray:
    """Mark the images whose pixels are also in the training split: bool [N]."""
    count = len(train.keys)
    return join({"train": train, "own": faces}).copies_of(np.arange(count))[count:]


def rename_classes(
    faces: Split, class_names: Sequence[str], names: Mapping[str, str | None]
) -> tuple[Split, list[str]]:
    """Give the classes of images other names, such as those that a network uses.

    Args:
      faces: the images; their labels index `class_names`.
      class_names: the names of the labels.
      names: old name -> new name, or None to leave these images out. Two may get one name; those
        that are not listed keep theirs.

    Returns:
      The images with a known class, and the new names.

    Raises:
      UserError: if there is no class of such an old name, or no image is left.
    """
    if unknown := sorted(names.keys() - set(class_names)):
        raise UserError(f"the images have no class {unknown[0]!r}: it is none of {class_names}")
    renamed = [names.get(name, name) for name in class_names]
    kept = list(dict.fromkeys(name for name in renamed if name is not None))
    places = np.array([-1 if name is None else kept.index(name) for name in renamed])
    labels = places[faces.labels]
    index = np.flatnonzero(labels >= 0)
    if not len(index):
        raise UserError("no image is left: every class is mapped to null")
    chosen = faces.select(index)
    return chosen._replace(labels=labels[index].astype(faces.labels.dtype), soft_labels=None), kept


def in_order_of(classes: Sequence[str], faces: Split, class_names: Sequence[str]) -> Split:
    """Return images with labels that index the classes of a network.

    Args:
      classes: the K classes of the network.
      faces: the images; their labels index `class_names`.
      class_names: the names of the labels, in any order; all must be classes of the network.

    Raises:
      UserError: if the network does not have a class.
    """
    missing = [name for name in class_names if name not in classes]
    if missing:
        raise UserError(
            f"the network has no class {missing[0]!r}: its classes are {list(classes)}, those of "
            f"the images {list(class_names)}"
        )
    places = np.array([list(classes).index(name) for name in class_names], faces.labels.dtype)
    return faces._replace(labels=places[faces.labels])
