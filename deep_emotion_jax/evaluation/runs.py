"""Reads finished runs, and selects the images to score their networks on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deep_emotion_jax.data.folds import Dataset, Run, join, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.files import read_json
from deep_emotion_jax.nn.weights import Trained, load_model

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as read from its workdir.

    Attributes:
      workdir: the folder.
      config: the settings, as in config.json.
      paths: `data_dir` and `manual_dir` of its data, if stored.
      fingerprint: fingerprint of its data.
      networks: run name -> network.
    """

    workdir: Path
    config: Mapping[str, Any]
    paths: Mapping[str, str]
    fingerprint: str
    networks: Mapping[str, Trained]


class Scored(NamedTuple):
    """A network and N images to score it on.

    Attributes:
      name: name of the network.
      trained: the network.
      faces: the images; labels index the network's classes.
      copies: bool [N], True for images that are also in the training split; None if unknown.
    """

    name: str
    trained: Trained
    faces: Split
    copies: np.ndarray | None = None


def read_run(workdir: Path) -> FinishedRun:
    """Read the settings and the networks of a finished run.

    Raises:
      UserError: if the folder does not hold a finished run, or a network is missing or damaged.
    """
    try:
        saved = read_json(workdir / "config.json")
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} is not the folder of a run of main.py: it has no config.json; choose "
            "another folder"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {workdir / 'config.json'}: {error}") from error
    if not _is_run(saved):
        raise UserError(
            f"{workdir / 'config.json'} is damaged; run main.py with this --workdir again"
        )
    if not (workdir / "summary.json").exists():
        raise UserError(f"the run in {workdir} is not finished; run its command again to resume it")
    weights = workdir / "weights"
    networks = {name: load_model(weights / f"{name}.safetensors") for name in saved["runs"]}
    paths = saved.get("paths", {})
    return FinishedRun(workdir, saved["config"], paths, saved["fingerprint"], networks)


def _is_run(saved: Any) -> bool:
    """Whether a config.json has the fields that are used here."""
    return (
        isinstance(saved, dict)
        and isinstance(config := saved.get("config"), dict)
        and isinstance(config.get("protocol"), str)
        and isinstance(saved.get("paths", {}), dict)
        and isinstance(saved.get("fingerprint"), str)
        and isinstance(names := saved.get("runs"), list)
        and all(isinstance(name, str) for name in names)
    )


def faces_of_run(run: FinishedRun, dataset: Dataset, part: str) -> dict[str, Split]:
    """Return the images of one part of each network's fold.

    Args:
      run: the run.
      dataset: the dataset of the run; for the official protocol, the split `part` is enough.
      part: one of `PARTS`, or "all".

    Raises:
      UserError: if the data differ from those of the run, or the part is empty.
    """
    protocol = run.config["protocol"]
    if protocol == "official" or part == "all":
        return dict.fromkeys(run.networks, join(dataset.splits))
    data = join(dataset.splits)
    if data.fingerprint() != run.fingerprint:
        raise UserError(
            f"the data differ from those of the run in {run.workdir}, so test images could be "
            "training images of the run; give its --data-dir or --manual-dir"
        )
    seeds = {int(name.rsplit("-", 1)[1]) for name in run.networks}
    runs = [Run(fold, seed) for seed in seeds for fold in make_folds(dataset, protocol, seed)]
    places = {each.name: getattr(each.fold, part) for each in runs}
    if not all(len(places[name]) for name in run.networks):
        raise UserError(f"the run in {run.workdir} has no {part} images; choose another --split")
    return {name: data.select(places[name]) for name in run.networks}


def copies_of_training(faces: Split, train: Split) -> np.ndarray:
    """Mark images whose pixels are also in the training split: bool [N]."""
    count = len(train.keys)
    return join({"train": train, "own": faces}).copies_of(np.arange(count))[count:]


def read_class_names(path: Path) -> dict[str, str | None]:
    """Read new names of classes, for `rename_classes`, from a JSON file.

    Raises:
      UserError: if it is not a JSON object of strings and nulls.
    """
    try:
        names = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(names, dict) or not all(
        name is None or isinstance(name, str) for name in names.values()
    ):
        raise UserError(
            f"{path} is not a JSON object of class names and nulls, such as "
            '{"anger": "angry", "contempt": null}'
        )
    return names


def rename_classes(
    faces: Split, class_names: Sequence[str], names: Mapping[str, str | None]
) -> tuple[Split, list[str]]:
    """Rename classes of images, for example to those of a network.

    Args:
      faces: the images; their labels index `class_names`.
      class_names: the names of the labels.
      names: old name -> new name, or None to drop the class. Classes may share a new name;
        classes that are not listed keep their names.

    Returns:
      The remaining images, and the new class names.

    Raises:
      UserError: for an unknown old name, or if no image is left.
    """
    if unknown := sorted(names.keys() - set(class_names)):
        raise UserError(f"the images have no class {unknown[0]!r}; their classes: {class_names}")
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
    """Return images whose labels index the classes of a network.

    Args:
      classes: the K classes of the network.
      faces: the images; their labels index `class_names`.
      class_names: the names of the labels, in any order.

    Raises:
      UserError: if the network lacks one of the classes.
    """
    missing = [name for name in class_names if name not in classes]
    if missing:
        raise UserError(
            f"the network has no class {missing[0]!r}; its classes are {list(classes)}, those of "
            f"the images {list(class_names)}"
        )
    places = np.array([list(classes).index(name) for name in class_names], faces.labels.dtype)
    return faces._replace(labels=places[faces.labels])
