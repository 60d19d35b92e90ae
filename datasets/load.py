"""From a config to the splits, classes and protocols of its dataset."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from tensorflow_datasets.core import DatasetBuilder

from datasets import arrays, stored
from datasets.common import prepare
from deep_emotion_jax.data.folds import Dataset, Protocols
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.runtime import multihost
from deep_emotion_jax.runtime.devices import choose_devices, fits


def load_dataset(config: ConfigDict, splits: Sequence[str] | None = None) -> Dataset:
    """Prepares a dataset if that has not been done, and reads splits of it.

    Every process of a training calls it.

    Args:
      config: its dataset, dataset_config, manual_dir and data_dir are used, and streaming,
        accelerator and num_devices to decide whether the images stay in files.
      splits: the splits to read; all if None.

    Raises:
      UserError: for an unknown dataset, dataset config or split, or data that cannot be read.
    """
    multihost.require_same(config.to_dict(), "settings")
    # One process prepares; the others then find the dataset, or prepare it on a disk of their own.
    multihost.in_step(lambda: _prepared(config), only_first=True)
    builder = multihost.in_step(lambda: _prepared(config))
    assert builder is not None
    there = list(builder.info.splits)
    wanted = there if splits is None else [name for name in there if name in splits]
    for name in splits or ():
        if name not in there:
            known = ", ".join(there)
            raise UserError(
                f"{config.dataset} has no split {name!r}; choose another with --split: {known}"
            )
    load = stored.load if _stays_in_files(config, builder, wanted) else arrays.load
    read = {name: load(builder, name) for name in wanted}
    names = builder.info.features["label"].names
    return Dataset(config.dataset, read, names, getattr(builder, "PROTOCOLS", Protocols()))


def _stays_in_files(config: ConfigDict, builder: DatasetBuilder, splits: Sequence[str]) -> bool:
    if config.streaming != "auto":
        return config.streaming == "always"
    devices = choose_devices(config.accelerator, config.num_devices)
    fit = fits(sum(stored.size(builder, name) for name in splits), devices)
    return multihost.any_process(not fit)[0]


def _prepared(config: ConfigDict) -> DatasetBuilder:
    try:
        module = importlib.import_module(
            f"datasets.{config.dataset}.{config.dataset}_dataset_builder"
        )
    except ModuleNotFoundError as error:
        known = sorted(path.parent.name for path in Path(__file__).parent.glob("*/*_builder.py"))
        raise UserError(f"config.dataset={config.dataset!r} is none of {known}") from error
    known = sorted(module.Builder.builder_configs)
    if config.dataset_config and config.dataset_config not in known:
        raise UserError(f"config.dataset_config={config.dataset_config!r} is none of {known}")
    manual_dir = Path(config.manual_dir).expanduser() if config.manual_dir else None
    # The classes of a folder are its subfolders.
    own = config.dataset == "folder"
    if config.detector != "none" and not own:
        raise UserError(
            f"config.detector={config.detector!r} finds faces in your own folder "
            f"(config.dataset='folder'); {config.dataset} has cut faces already: leave it 'none'"
        )
    settings = (
        module.read_config(manual_dir, config.detector) if own else config.dataset_config or None
    )
    data_dir = Path(config.data_dir).expanduser()
    builder = module.Builder(data_dir=data_dir, config=settings)
    prepare(builder, manual_dir)
    return builder
