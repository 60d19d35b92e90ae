"""Evaluate trained networks: scores, tables, cross-validation, region maps.

Example:
  python eval.py evaluate --workdir runs/fer2013 --split validation

Each command has its own --help.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import command_line
from deep_emotion_jax.cli import evaluation as cli
from deep_emotion_jax.cli.options import HelpFormatter
from deep_emotion_jax.constants import VIEWS

if TYPE_CHECKING:
    from deep_emotion_jax.cli.selection import Selection

# The commands import JAX and everything that needs it, so that --help is fast.


def cross_validate(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Train all folds of the subject-independent protocol in one program.

    Example:
      python eval.py cross-validate --config configs/ck_plus.py --config.manual_dir=PATH
    """
    _train(options, [*overrides, "--config.protocol=subjects"], "_subjects")


def seeds(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Train one config with several seeds in one program.

    Example:
      python eval.py seeds --config configs/fer2013.py --config.manual_dir=PATH --num 3
    """
    _train(options, overrides, "_seeds", options.num)


def folds(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Print fold, split and key of every example, one example per line.

    Example:
      python eval.py folds --config configs/ck_plus.py --config.manual_dir=PATH
    """
    from datasets.load import load_dataset
    from deep_emotion_jax.data.folds import join, make_folds
    from deep_emotion_jax.evaluation.runs import PARTS

    config, _ = command_line.read_config(options.config, overrides)
    dataset = load_dataset(config)
    keys = join(dataset.splits).keys
    for fold in make_folds(dataset, config.protocol, config.seed):
        for part in PARTS:
            for key in sorted(keys[i] for i in getattr(fold, part)):
                print(f"{fold.name}\t{part}\t{key}")


def table(options: argparse.Namespace) -> None:
    """Print the results of all finished runs and the paper's as a Markdown table.

    With --readme, update docs/results.json and the table of README.md instead: results given by
    --json are added, or replace those of the same dataset, protocol, network and split.

    Example:
      python eval.py table --runs runs
    """
    from deep_emotion_jax.evaluation import comparison, readme

    if options.readme:
        readme.update(Path(__file__).parent, options.json)
    else:
        print(comparison.results_table(options.runs, options.json, with_missing=options.all))


def evaluate(options: argparse.Namespace) -> None:
    """Score all networks of a run, or one network, on a split.

    Example:
      python eval.py evaluate --workdir runs/fer2013 --split validation
    """
    from deep_emotion_jax.evaluation import scores
    from deep_emotion_jax.evaluation.predictions import write_predictions
    from deep_emotion_jax.evaluation.views import predict_views
    from deep_emotion_jax.files import write_json

    selection = _select(options)
    classes = selection.networks[0].trained.classes
    results = []
    for scored in selection.networks:
        logits = predict_views(scored.trained.model, scored.faces.images, options.tta)
        results.append(scores.score(scored, logits))
        if options.predictions:
            file = options.predictions
            if len(selection.networks) > 1:
                file = file.with_stem(f"{file.stem}-{scored.name}")
            write_predictions(file, scored.faces, logits, classes)
            print(f"predictions in {file}")
    averaging = f" averaged over {VIEWS[options.tta]}" if VIEWS[options.tta] else ""
    title = f"{selection.title}, {options.split} split{averaging}"
    print(f"{title}, {results[0].score.count} images\n")
    print(scores.describe(results))
    if options.json:
        more = options.tta if options.tta in ("shifts", "ten") else None
        about = {**selection.about, "mirrored": options.tta == "mirror", "tta": more}
        write_json(options.json, scores.record(results, options.split, about))
        print(f"scores in {options.json}")
    if options.workdir:
        suffix = {"none": "", "mirror": "_flip"}.get(options.tta, f"_{options.tta}")
        stem = options.workdir / f"evaluate_{options.split}{suffix}"
        scores.write(stem, results, f"{selection.title} {options.split}{averaging}")
        print(f"\nresults in {stem.parent}: {stem.name}.json, {stem.name}.png, {stem.name}.csv")


def calibrate(options: argparse.Namespace) -> None:
    """Fit the temperature that makes a network's probabilities match its accuracy.

    Runs of main.py fit it themselves. --save writes a copy of the network with the temperature in
    its metadata, where the predictor reads it.

    Example:
      python eval.py calibrate --model deep_emotion.fer2013 --manual-dir PATH --save new.safetensors
    """
    from deep_emotion_jax.evaluation import calibration, tables
    from deep_emotion_jax.nn.logits import predict_logits
    from deep_emotion_jax.nn.weights import save_model

    options.workdir = None
    ((_, trained, faces, _),) = _select(options).networks
    views = [
        predict_logits(trained.model, images) for images in (faces.images, faces.images[:, :, ::-1])
    ]
    temperature = calibration.fit_temperature(views[0], faces.labels)
    errors = calibration.view_errors(temperature, views, faces.labels)
    print(f"temperature {temperature:.4f}, fitted on {len(faces.labels)} {options.split} images\n")
    rows = [(name, f"{e['before']:.3f}", f"{e['after']:.3f}") for name, e in errors.items()]
    print(tables.markdown_table(("calibration error", "before", "after"), rows))
    if options.save:
        about = {**trained.about, "temperature": temperature, "calibration_error": errors}
        save_model(options.save, trained.model, trained.settings, trained.classes, about)
        print(f"network with temperature in {options.save}")


def interpolate(options: argparse.Namespace) -> None:
    """Write a network whose weights lie between those of a network and of a fine-tuned copy.

    It often keeps most of what both have learned. Fit its temperature with `calibrate`.

    Example:
      python eval.py interpolate --models deep_emotion_wide.fer2013 TUNED --share 0.3 --save NEW
    """
    from deep_emotion_jax.errors import UserError
    from deep_emotion_jax.nn import weights
    from deep_emotion_jax.pretrained import load_pretrained

    if not 0 <= options.share <= 1:
        raise UserError(f"--share {options.share:g} is not between 0 and 1")
    first, second = map(load_pretrained, options.models)
    model = weights.interpolate(first, second, options.share)
    about = {"share": options.share, "first": first.about, "second": second.about}
    weights.save_model(options.save, model, first.settings, first.classes, about)
    print(f"network in {options.save}")


def regions(options: argparse.Namespace) -> None:
    """Draw the regions that matter, and score the maps if the true regions are known.

    Example:
      python eval.py regions --model deep_emotion.fer2013 --manual-dir PATH --split validation
    """
    from deep_emotion_jax.evaluation import tables
    from deep_emotion_jax.evaluation.regions import (
        truth_scores,
        write_regions,
        write_telling_faces,
    )
    from deep_emotion_jax.files import write_json

    selection = _select(options)
    name, trained, faces, _ = selection.networks[0]
    stem = f"regions_{options.split}" + (f"_{name}_{options.dataset}" if options.model else "")
    written = [selection.folder / f"{stem}.png", selection.folder / f"{stem}_telling.png"]
    title = f"{selection.title} {options.split}"
    write_regions(trained.model, faces, trained.classes, title, written[0])
    write_telling_faces(trained.model, faces, trained.classes, title, written[1])
    if faces.evidence is not None:
        scores = truth_scores(trained.model, faces, len(trained.classes))
        written.append(selection.folder / f"{stem}.json")
        write_json(written[-1], scores)
        print(tables.truth_table(scores))
    print(f"results in {', '.join(map(str, written))}")


def robustness(options: argparse.Namespace) -> None:
    """Compare networks on shifted, rotated and scaled faces.

    Example:
      python eval.py robustness --workdirs runs/with runs/without --out runs/attention
    """
    from deep_emotion_jax.evaluation.robustness import (
        CHANGES,
        accuracy_under_change,
        describe,
        write_curves,
    )

    curves = {}
    for workdir in options.workdirs:
        options.workdir = workdir
        found = [
            accuracy_under_change(trained.model, faces.images, faces.labels)
            for _, trained, faces, _ in _select(options).networks
        ]
        curves[workdir.name] = {change: [run[change] for run in found] for change in CHANGES}
    print(describe(curves))
    written = write_curves(curves, options.out, f"Accuracy on changed {options.split} faces")
    print(f"\nresults in {', '.join(map(str, written))}")


def _train(
    options: argparse.Namespace, overrides: Sequence[str], suffix: str, num: int | None = None
) -> None:
    """Train all folds of a config, with its seed or with `num` seeds from there on."""
    from datasets.load import load_dataset
    from deep_emotion_jax.runtime.devices import choose_devices
    from deep_emotion_jax.training.experiment import run

    config, name = command_line.read_config(options.config, overrides)
    choose_devices(config.accelerator, config.num_devices)  # fails before the data are read
    workdir = options.workdir or Path(f"runs/{name}{suffix}")
    chosen = None if num is None else range(config.seed, config.seed + num)
    run(config, load_dataset(config), workdir, chosen)


def _select(options: argparse.Namespace) -> "Selection":
    from datasets.load import load_dataset
    from deep_emotion_jax.cli.selection import select

    config, _ = command_line.read_config(None)
    return select(options, config, load_dataset)


def _add_settings(command: argparse.ArgumentParser, suffix: str, *, required: bool) -> None:
    command_line.add_options(command, config_required=required, suffix=suffix)
    command.epilog = command_line.SETTINGS_HELP
    command.set_defaults(takes_settings=True)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, function, *groups in (
        ("evaluate", evaluate, cli.add_network, cli.add_data, cli.add_evaluate),
        ("calibrate", calibrate, cli.add_calibrate),
        ("interpolate", interpolate, cli.add_interpolate),
        ("regions", regions, cli.add_network, cli.add_data),
        ("robustness", robustness, cli.add_robustness),
        ("table", table, cli.add_table),
    ):
        command = cli.add_command(commands, name, function)
        for add in groups:
            add(command)
    command = cli.add_command(commands, "cross-validate", cross_validate)
    _add_settings(command, "_subjects", required=True)
    _add_settings(cli.add_command(commands, "folds", folds), "", required=False)
    command = cli.add_command(commands, "seeds", seeds)
    _add_settings(command, "_seeds", required=False)
    command.add_argument(
        "--num", type=int, default=5, help="number of seeds (default: %(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    takes_settings = getattr(options, "takes_settings", False)
    if rest and not takes_settings:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    from deep_emotion_jax.runtime.command import run_command

    run_command(lambda: options.function(options, *([rest] if takes_settings else [])))


if __name__ == "__main__":
    main(sys.argv[1:])
