"""Trains, validates and reports Deep-Emotion.

    python main.py --workdir runs/first                      # generated faces, no download
    python main.py --config configs/fer2013.py --config.manual_dir=PATH --workdir runs/fer2013

Everything goes to --workdir; the same command goes on where a cut training stopped. SIGTERM and
Ctrl-C save and end with exit code 75; see docs/reliability.md.
"""

import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

# Two CPU devices on two cores train faster than one device with two threads, and the number must
# be set before JAX starts. A GPU or TPU is not affected.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))

import jax
import numpy as np
from absl import app, flags, logging
from flax import nnx
from ml_collections import ConfigDict, config_flags
from tensorflow_datasets.core import DatasetBuilder

from datasets.common import prepare
from deep_emotion_jax.data.folds import Run, join, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.report import Results, write_results
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import start_from
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.runtime import multihost
from deep_emotion_jax.runtime.signals import STOPPED_EXIT_CODE, Stopped
from deep_emotion_jax.runtime.workdir import claim_workdir, provenance
from deep_emotion_jax.training.config import read_settings
from deep_emotion_jax.training.distill import with_teacher
from deep_emotion_jax.training.loop import fit
from deep_emotion_jax.training.selection import describe_rule
from deep_emotion_jax.training.validation import best_models

HERE = Path(__file__).parent
DEFAULT_CONFIG = str(HERE / "configs/synthetic_faces.py")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment; default: generated faces."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Receives everything; default runs/<config name>.")
ACCEPT_CHANGES = flags.DEFINE_bool(
    "accept_changes", False, "Go on with a workdir of another config or other data."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes that train together; see docs/scaling.md."
)


def load_dataset(config: ConfigDict) -> tuple[dict[str, Split], list[str]]:
    """Prepares the dataset where that is still to be done, and reads its splits and class names."""
    try:
        module = importlib.import_module(
            f"datasets.{config.dataset}.{config.dataset}_dataset_builder"
        )
    except ModuleNotFoundError as error:
        known = sorted(path.parent.name for path in (HERE / "datasets").glob("*/*_builder.py"))
        raise UserError(f"config.dataset={config.dataset!r} is none of {known}") from error
    known = sorted(module.Builder.builder_configs)
    if config.dataset_config and config.dataset_config not in known:
        raise UserError(f"config.dataset_config={config.dataset_config!r} is none of {known}")
    manual_dir = Path(os.path.expanduser(config.manual_dir)) if config.manual_dir else None

    def prepared() -> DatasetBuilder:
        # The classes of a folder are what lies there.
        own = config.dataset == "folder"
        settings = module.read_config(manual_dir) if own else config.dataset_config or None
        builder = module.Builder(data_dir=config.data_dir, config=settings)
        prepare(builder, manual_dir)
        return builder

    # One process prepares; the others then find the dataset, or prepare it on a disk of their own.
    multihost.in_step(prepared, only_first=True)
    builder = multihost.in_step(prepared)
    splits = {
        name: multihost.read_split(builder.as_data_source(split=name))
        for name in builder.info.splits
    }
    return splits, builder.info.features["label"].names


def run(
    config: ConfigDict,
    workdir: Path,
    seeds: Sequence[int] | None = None,
    *,
    accept_changes: bool = False,
) -> None:
    """Trains the folds of the config's protocol, once for each seed, and reports to a folder."""
    experiment = read_settings(config)
    multihost.require_same([config.to_dict(), str(workdir)], "settings")
    print(f"{len(jax.devices())} x {jax.devices()[0].device_kind}; results go to {workdir}")
    splits, class_names = load_dataset(config)
    runs = [
        Run(fold, seed)
        for seed in seeds or [config.seed]
        for fold in make_folds(config.dataset, config.protocol, splits, seed)
    ]
    data = join(splits)
    if config.teacher:
        trained_on = np.unique(np.concatenate([run.fold.train for run in runs]))
        data = with_teacher(data, load_pretrained(config.teacher), trained_on, class_names)
    trained = load_pretrained(config.init_from) if config.init_from else None

    def new_model(seed: int) -> DeepEmotion:
        model = DeepEmotion(len(class_names), **config.model, rngs=nnx.Rngs(seed))
        if trained is not None:
            start_from(model, class_names, trained)
        return model

    try:
        models = [new_model(run.seed) for run in runs]
    except ValueError as error:
        raise UserError(f"config.model: {error}") from error
    about = provenance(config, data, [run.name for run in runs])
    with ExitStack() as stack:
        claim = claim_workdir(workdir, about, accept_changes=accept_changes)
        multihost.in_step(lambda: stack.enter_context(claim), only_first=True)
        state, records = fit(
            models,
            experiment,
            data,
            runs,
            workdir=workdir,
            about=about,
            new_model=new_model,
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


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the command line.

    Raises:
      UserError: for a setting or a config file that does not exist, or a value of another type.
    """
    given = re.findall(r"^--?config(?:=|\n)(.*)$", "\n".join(argv[1:]), re.MULTILINE)
    if not given:
        # Not as the flag's default: that would be read before errors can be caught.
        argv = [argv[0], f"--config={DEFAULT_CONFIG}", *argv[1:]]
    for file in given:
        path = Path(file.partition(":")[0])  # what follows is for its get_config
        if path.suffix != ".py" or not path.is_file():
            raise UserError(
                f"--config={path} is no Python file; {HERE / 'configs'} holds the ones there are"
            )
    try:
        rest = app.parse_flags_with_usage(argv)
        _ = CONFIG.value.seed  # a config that could not be read says so only here
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        reason = str(error)
        if isinstance(error.__context__, KeyError):
            reason = f"no setting is called {error.__context__.args[0]}"
        lines = " ".join(reason.split())
        raise UserError(
            f"--config: {lines}; deep_emotion_jax/training/config.py lists all settings"
        ) from error
    if len(rest) > 1:
        raise UserError(
            f"unexpected argument {rest[1]!r}: settings are given as --config.NAME=VALUE"
        )
    return rest


def config_name() -> str:
    """Name of the config file that was given."""
    return Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem


def main(argv: list[str]) -> None:
    """Runs the experiment of the flags."""
    del argv
    logging.set_verbosity(logging.WARNING)
    workdir = Path(WORKDIR.value or f"runs/{config_name()}")
    with multihost.joined() if DISTRIBUTED.value else nullcontext():
        run(CONFIG.value, workdir, accept_changes=ACCEPT_CHANGES.value)


def command_line(command: Callable[[], None]) -> None:
    """Runs what the shell started; the exit code says how it ended, see docs/reliability.md."""
    try:
        command()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout once more
        sys.exit("error: the output was closed before the end; start the same command again")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(f"error: {error}; make room, then start the same command again: it goes on")
    except Stopped as stopped:
        for stream in (sys.stdout, sys.stderr):  # the first may be closed, or both
            with suppress(BrokenPipeError):
                print(stopped, file=stream, flush=True)
                break
        # All is closed. sys.exit would wait for the epoch that XLA may still be computing.
        os._exit(STOPPED_EXIT_CODE)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    command_line(lambda: app.run(main, flags_parser=parse_flags))
