"""Runs an experiment: trains and reports the runs of a config."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from deep_emotion_jax.data.folds import Dataset, Run, drop_copies, join, make_folds
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
    dataset: Dataset,
    workdir: Path,
    seeds: Sequence[int] | None = None,
    *,
    accept_changes: bool = False,
) -> None:
    """Trains the folds of the config's protocol, once per seed, and writes the report.

    Resumes an unfinished run in `workdir`. Every process of a distributed training calls it.

    Args:
      config: the settings, see `training.config.Experiment`.
      dataset: the splits, as `datasets.load.load_dataset` returns them.
      workdir: the folder for all results; created if absent.
      seeds: seeds to train every fold with; None for the config's own.
      accept_changes: resume `workdir` even if its config or data differ.

    Raises:
      UserError: for settings that are out of range or do not fit the data; also as `fit`.
    """
    experiment = read_settings(config)
    multihost.require_same([config.to_dict(), str(workdir)], "settings")
    devices = choose_devices(experiment.accelerator, experiment.num_devices)
    print(f"{describe(devices)}; results go to {workdir}")
    class_names = dataset.class_names
    data = join(dataset.splits)
    runs = _runs(experiment, dataset, data, seeds or [experiment.seed])
    new_model = _maker(experiment, class_names)
    models = [new_model(run.seed) for run in runs]
    experiment, data = with_soft_labels(experiment, data, runs, class_names)
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


def _runs(experiment: Experiment, dataset: Dataset, data: Split, seeds: Sequence[int]) -> list[Run]:
    """Returns a run for every fold of the protocol and seed; `data` is the join of the splits."""
    runs = [
        Run(fold, seed) for seed in seeds for fold in make_folds(dataset, experiment.protocol, seed)
    ]
    if experiment.drop_copies:
        runs = [Run(drop_copies(run.fold, data), run.seed) for run in runs]
    return runs


def with_soft_labels(
    experiment: Experiment, data: Split, runs: Sequence[Run], class_names: Sequence[str]
) -> tuple[Experiment, Split]:
    """Returns the experiment and the data with the soft labels to train on, if any.

    Raises:
      UserError: if the dataset has no votes, or a teacher does not fit.
    """
    if experiment.labels == "votes":
        if data.soft_labels is None:
            raise UserError(
                f"config.labels='votes' needs votes, which {experiment.dataset} lacks; set "
                "config.dataset='fer2013' and config.dataset_config='ferplus'"
            )
        if experiment.teacher:
            raise UserError(
                "config.labels='votes' and config.teacher both set soft labels; use one of them"
            )
        recipe = dataclasses.replace(experiment.recipe, teacher_share=1.0)
        return dataclasses.replace(experiment, recipe=recipe), data
    if not experiment.teacher:
        return experiment, data._replace(soft_labels=None)
    trained_on = np.unique(np.concatenate([run.fold.train for run in runs]))
    teachers = [load_pretrained(name) for name in experiment.teacher.split(",")]
    print(f"computing the soft labels of {experiment.teacher} ...")
    return experiment, with_teachers(data, teachers, trained_on, class_names)


def _maker(experiment: Experiment, class_names: Sequence[str]) -> Callable[[int], DeepEmotion]:
    """Returns a function that makes the initial network from a seed."""
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
