"""From a config and the splits of a dataset to a trained, reported run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from deep_emotion_jax.data.folds import Run, join, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.report import Results, write_results
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import start_from
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.runtime import multihost
from deep_emotion_jax.runtime.devices import choose_devices, describe
from deep_emotion_jax.runtime.workdir import claim_workdir, provenance
from deep_emotion_jax.training.config import Experiment, read_settings
from deep_emotion_jax.training.distill import with_teachers
from deep_emotion_jax.training.loop import fit
from deep_emotion_jax.training.selection import describe_rule
from deep_emotion_jax.training.validation import best_models


def run(
    config: ConfigDict,
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    workdir: Path,
    seeds: Sequence[int] | None = None,
    *,
    accept_changes: bool = False,
) -> None:
    """Trains the folds of the config's protocol, once for each seed, and writes the report.

    Every process of a training calls it. An unfinished run in `workdir` is resumed.

    Args:
      config: the settings, see `training.config.Experiment`.
      splits: the dataset, such as `datasets.load.load_dataset` returns it.
      class_names: the K names of the labels.
      workdir: the folder for all results; made if absent.
      seeds: one training of every fold for each; None for the config's own seed.
      accept_changes: resume a workdir of another config or other data.

    Raises:
      UserError: for settings out of range or that do not fit the data, and as `fit`.
    """
    experiment = read_settings(config)
    multihost.require_same([config.to_dict(), str(workdir)], "settings")
    devices = choose_devices(experiment.accelerator, experiment.num_devices)
    print(f"{describe(devices)}; results go to {workdir}")
    runs = [
        Run(fold, seed)
        for seed in seeds or [experiment.seed]
        for fold in make_folds(experiment.dataset, experiment.protocol, dict(splits), seed)
    ]
    data = _with_soft_labels(join(dict(splits)), experiment, runs, class_names)
    new_model = _maker(experiment, class_names)
    models = [new_model(run.seed) for run in runs]
    about = provenance(config, data, [run.name for run in runs], devices)
    with ExitStack() as stack:
        claim = claim_workdir(workdir, about, accept_changes=accept_changes)
        multihost.in_step(lambda: stack.enter_context(claim), only_first=True)
        state, records = fit(
            models, experiment, data, runs, workdir=workdir, about=about, new_model=new_model
        )
        results = Results(
            models=best_models(models, state),
            best_epochs=state.best_epoch.tolist(),
            chosen_by=[describe_rule(len(run.fold.validation)) for run in runs],
            restarts=state.restarts.tolist(),
            records=records,
            data=data,
            runs=runs,
            class_names=class_names,
            config=config,
            provenance=about,
            workdir=workdir,
        )
        multihost.in_step(lambda: write_results(results), only_first=True)


def _with_soft_labels(
    data: Split, experiment: Experiment, runs: Sequence[Run], class_names: Sequence[str]
) -> Split:
    """The data with the soft labels of the config's teacher, if it has one."""
    if not experiment.teacher:
        return data
    trained_on = np.unique(np.concatenate([run.fold.train for run in runs]))
    teachers = [load_pretrained(name) for name in experiment.teacher.split(",")]
    return with_teachers(data, teachers, trained_on, class_names)


def _maker(experiment: Experiment, class_names: Sequence[str]) -> Callable[[int], DeepEmotion]:
    """A function from a seed to the network before training."""
    settings = dataclasses.asdict(experiment.model)
    trained = load_pretrained(experiment.init_from) if experiment.init_from else None

    def new_model(seed: int) -> DeepEmotion:
        try:
            model = DeepEmotion(len(class_names), **settings, rngs=nnx.Rngs(seed))
        except ValueError as error:
            raise UserError(f"config.model: {error}") from error
        if trained is not None:
            start_from(model, class_names, trained)
        return model

    return new_model
