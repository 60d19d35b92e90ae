"""Loads the networks and images that the options of eval.py select."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deep_emotion_jax.data.folds import Dataset, join
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation import runs, scores
from deep_emotion_jax.evaluation.runs import FinishedRun, Scored
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.runtime.devices import choose_devices, describe

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Load = Callable[["ConfigDict", Sequence[str] | None], Dataset]


class Selection(NamedTuple):
    """The networks to score, the title of the results, their folder, and metadata for a record."""

    networks: list[Scored]
    title: str
    folder: Path
    about: dict[str, Any]


def select(options: argparse.Namespace, config: "ConfigDict", load: Load) -> Selection:
    """Loads the networks of the options and the images to score them on.

    Args:
      options: those of `cli.evaluation.add_network` and `add_data`.
      config: the default config; settings of the run and the options are copied to it.
      load: `datasets.load.load_dataset`.

    Raises:
      UserError: if a run, network, dataset or split cannot be read, or they do not fit.
    """
    file = getattr(options, "classes", None)
    mapping = runs.read_class_names(file) if file else None
    device = describe(choose_devices(options.device))
    print(device)
    finished = runs.read_run(options.workdir) if options.workdir else None
    _configure(config, options, finished)
    part = options.split
    wanted = [part] if config.protocol == "official" and part != "all" else None
    dataset = load(config, wanted)
    if finished:
        networks = finished.networks
        faces = runs.faces_of_run(finished, dataset, part)
    else:
        name = options.model
        name = Path(name).stem if name.endswith(".safetensors") else name
        networks = {name: load_pretrained(options.model)}
        faces = {name: join(dataset.splits)}
    copies = None
    if wanted and part != "train":
        copies = _copies_of_training(config, dataset.splits[part], load)
    scored = []
    for name, trained in networks.items():
        own, names = faces[name], dataset.class_names
        if mapping:
            own, names = runs.rename_classes(own, names, mapping)
        own = runs.in_order_of(trained.classes, own, names)
        scored.append(Scored(name, trained, own, None if mapping else copies))
    title = str(options.workdir or f"{options.model} on {config.dataset}")
    folder = options.workdir or Path()
    name = folder.resolve().name if options.workdir else scored[0].name
    about = scores.about(name, config, scored[0].trained.model, device)
    return Selection(scored, title, folder, about)


def _configure(
    config: "ConfigDict", options: argparse.Namespace, finished: FinishedRun | None
) -> None:
    """Sets the dataset of the run or the options in a config."""
    if finished:
        for key, value in {**finished.config, **finished.paths}.items():
            if key in config and not isinstance(value, dict):  # not model, recipe, augmentation
                try:
                    config[key] = value
                except TypeError as error:
                    raise UserError(
                        f"{finished.workdir / 'config.json'} is damaged ({error}); run main.py "
                        "with this --workdir again"
                    ) from error
    else:
        config.dataset, config.protocol = options.dataset, "official"
    for name in ("dataset_config", "data_dir", "manual_dir", "detector"):
        if given := getattr(options, name):
            config[name] = str(given)
    config.streaming = "never"  # a whole split is scored at once


def _copies_of_training(config: "ConfigDict", faces: Split, load: Load) -> np.ndarray | None:
    """Marks faces that are also in the training split: bool [N], or None if unknown."""
    if faces.copies is None:
        return None
    try:
        train = load(config, ["train"]).splits["train"]
    except UserError:  # the data have only this split
        return None
    return runs.copies_of_training(faces, train)
