"""Scores, tables, cross-validation and region maps.

    python eval.py evaluate --workdir runs/fer2013 --split test
    python eval.py evaluate --model deep_emotion.fer2013 --dataset fer2013 --manual-dir PATH
    python eval.py table --runs runs
    python eval.py cross-validate --config configs/ck_plus.py --config.manual_dir=PATH
    python eval.py seeds --config configs/fer2013.py --config.manual_dir=PATH --num 5
    python eval.py folds --config configs/ck_plus.py
    python eval.py regions --workdir runs/fer2013
    python eval.py regions --model deep_emotion.fer2013 --dataset fer2013 --split validation
    python eval.py robustness --workdirs runs/with runs/without --out runs/attention

Settings of the training commands are given as for main.py.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import command_line
from datasets.load import load_dataset
from deep_emotion_jax.data.folds import Fold, join, make_folds
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation import figures, metrics
from deep_emotion_jax.evaluation.predictions import write_predictions
from deep_emotion_jax.evaluation.regions import truth_scores, write_regions, write_telling_faces
from deep_emotion_jax.evaluation.robustness import AMOUNTS, CHANGES, accuracy_under_change
from deep_emotion_jax.evaluation.tables import (
    markdown_table,
    mean_and_deviation,
    results_table,
    score_cells,
)
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.nn.weights import Trained, load_model
from deep_emotion_jax.pretrained import load_pretrained
from deep_emotion_jax.runtime.command import run_command
from deep_emotion_jax.runtime.devices import choose_devices
from deep_emotion_jax.training.experiment import run as train

PARTS = ("train", "validation", "test")


class Entry(NamedTuple):
    """A trained network and the division of the data it is scored on."""

    name: str
    trained: Trained
    fold: Fold


def cross_validate(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains every fold of the protocol in which nobody is on two sides, in one program."""
    config, name = command_line.read_config(options.config, rest)
    config.protocol = "subjects"
    choose_devices(config.accelerator, config.num_devices)  # fails before the data are read
    train(config, *load_dataset(config), options.workdir or Path(f"runs/{name}_subjects"))


def seeds(options: argparse.Namespace, rest: list[str]) -> None:
    """Trains one config from several seeds in one program."""
    config, name = command_line.read_config(options.config, rest)
    chosen = range(config.seed, config.seed + options.num)
    choose_devices(config.accelerator, config.num_devices)  # fails before the data are read
    train(config, *load_dataset(config), options.workdir or Path(f"runs/{name}_seeds"), chosen)


def folds(options: argparse.Namespace, rest: list[str]) -> None:
    """Prints on which side of each fold every example is, one line each."""
    config, _ = command_line.read_config(options.config, rest)
    splits, _ = load_dataset(config)
    keys = join(splits).keys
    for fold in make_folds(config.dataset, config.protocol, splits, config.seed):
        for part in PARTS:
            for key in sorted(keys[i] for i in getattr(fold, part)):
                print(f"{fold.name}\t{part}\t{key}")


def table(options: argparse.Namespace) -> None:
    """Prints the paper's results table beside ours, as Markdown."""
    print(results_table(options.runs, with_missing=options.all))


def evaluate(options: argparse.Namespace) -> None:
    """Scores the networks of a workdir, or one network, on a split."""
    entries, data, class_names, name = _entries(options)
    folder = options.workdir or Path()
    found, rows = [], []
    for entry in entries:
        index = getattr(entry.fold, options.split)
        if not len(index):
            raise UserError(f"the data have no {options.split} images; choose another --split")
        chosen = data.select(index)
        logits = predict_logits(entry.trained.model, chosen.images, flip=options.flip)
        score = metrics.evaluate(logits, chosen.labels)
        found.append(score)
        rows.append((entry.name, *score_cells(score)))
        if options.predictions:
            path = options.predictions
            if len(entries) > 1:
                path = path.with_stem(f"{path.stem}-{entry.name}")
            write_predictions(path, chosen, logits, class_names)
            print(f"predictions in {path}")
    over_runs = metrics.mean_and_interval([score.accuracy for score in found])
    averaging = " with flip averaging" if options.flip else ""
    print(f"{name}, {options.split} split{averaging}, {found[0].count} images\n")
    recalls = [f"recall {label}" for label in class_names]
    header = ("run", "accuracy %", "95 % interval", "macro-F1", "calibration error", *recalls)
    print(markdown_table(header, rows))
    if over_runs.std is not None:
        low, high = over_runs.interval95 or (0, 0)
        print(
            f"\naccuracy over {over_runs.count} runs: {over_runs.mean:.2%}, standard deviation "
            f"{over_runs.std:.2%}, 95 % interval {low:.2%} to {high:.2%}"
        )
    if options.workdir:
        stem = f"evaluate_{options.split}" + ("_flip" if options.flip else "")
        matrix = np.sum([score.confusion_matrix for score in found], axis=0)
        title = f"{name} {options.split}{averaging}: {np.trace(matrix) / matrix.sum():.2%}"
        figures.confusion_matrix_png(matrix, class_names, folder / f"{stem}.png", title)
        figures.confusion_matrix_csv(matrix, class_names, folder / f"{stem}.csv")
        runs = {entry.name: score.to_json() for entry, score in zip(entries, found, strict=True)}
        write_json(
            folder / f"{stem}.json", {"over_runs": dataclasses.asdict(over_runs), "runs": runs}
        )
        print(f"\nresults in {folder}: {stem}.json, {stem}.png, {stem}.csv")


def regions(options: argparse.Namespace) -> None:
    """Draws the paper's region figure and telling faces; scores maps where truth is known."""
    entries, data, class_names, name = _entries(options)
    model, fold = entries[0].trained.model, entries[0].fold
    faces = data.select(getattr(fold, options.split))
    folder = options.workdir or Path()
    named = f"regions_{options.split}"
    if options.model:
        named = f"{named}_{entries[0].name}_{options.dataset}"
    written = [folder / f"{named}.png", folder / f"{named}_telling.png"]
    write_regions(model, faces, class_names, f"{name} {options.split}", written[0])
    write_telling_faces(model, faces, class_names, f"{name} {options.split}", written[1])
    if faces.evidence is not None:
        scores = truth_scores(model, faces, len(class_names))
        written.append(folder / f"{named}.json")
        write_json(written[-1], scores)
        chance = scores.pop("chance")
        print(f"{chance['faces']} faces; the true regions cover {chance['mask']:.1%} of them\n")
        header = (
            "map",
            "faces with a map %",
            "importance inside %",
            "pointing hits %",
            "rank correlation, shuffled weights",
        )
        rows = [
            (
                method,
                f"{100 * score['mapped']:.0f}",
                f"{100 * score['mass_inside']:.1f}",
                f"{100 * score['pointing_hit']:.1f}",
                "-" if score["after_shuffling"] is None else f"{score['after_shuffling']:.2f}",
            )
            for method, score in scores.items()
        ]
        print(markdown_table(header, rows) + "\n")
    print(f"results in {', '.join(map(str, written))}")


def robustness(options: argparse.Namespace) -> None:
    """Compares networks on shifted, turned and scaled faces; mean and deviation over the runs."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for workdir in options.workdirs:
        options.workdir = workdir
        entries, data, _, _ = _entries(options)
        found = []
        for entry in entries:
            faces = data.select(getattr(entry.fold, options.split))
            found.append(accuracy_under_change(entry.trained.model, faces.images, faces.labels))
        curves[workdir.name] = {change: [run[change] for run in found] for change in CHANGES}
    rows = []
    for name, changes in curves.items():
        for change, runs in changes.items():
            over_runs = [metrics.mean_and_interval(shares) for shares in zip(*runs, strict=True)]
            cells = [mean_and_deviation(each.mean, each.std, digits=1) for each in over_runs]
            rows.append((name, change, *cells))
    print(markdown_table(("network", "change", *(f"{a:.0%}" for a in AMOUNTS)), rows))
    options.out.mkdir(parents=True, exist_ok=True)
    figure, numbers = options.out / "robustness.png", options.out / "robustness.json"
    figures.robustness_png(curves, AMOUNTS, figure, f"Accuracy on changed {options.split} faces")
    write_json(numbers, {"amounts": AMOUNTS, "accuracy": curves})
    print(f"\nresults in {figure}, {numbers}")


def _entries(options: argparse.Namespace) -> tuple[list[Entry], Split, list[str], str]:
    """The networks to score, the data joined, its class names, and what to call all this."""
    config, _ = command_line.read_config(None)
    trained: dict[str, Trained]
    if options.workdir:
        saved = _read_workdir(options.workdir)
        config.update(saved["config"])
        trained = {
            name: load_model(options.workdir / "weights" / f"{name}.safetensors")
            for name in saved["runs"]
        }
    else:
        config.dataset = options.dataset
        name = options.model
        name = Path(name).stem if name.endswith(".safetensors") else name
        trained = {name: load_pretrained(options.model)}
    config.data_dir = options.data_dir
    config.manual_dir = options.manual_dir
    splits, class_names = load_dataset(config)
    data = join(splits)
    for name, model in trained.items():
        if list(model.classes) != class_names:
            raise UserError(
                f"{name} names {list(model.classes)}, the images of {config.dataset} are labelled "
                f"{class_names}"
            )
    if options.workdir and config.protocol != "official":
        if data.fingerprint() != saved["fingerprint"]:
            raise UserError(
                f"the data are not those that {options.workdir} was trained on, so what was test "
                "there may be training here; give the same --data-dir"
            )
        seeds = sorted({int(name.rsplit("-", 1)[1]) for name in trained})
    else:
        seeds = [config.seed]
    by_name = {
        f"{fold.name}-seed-{seed}": fold
        for seed in seeds
        for fold in make_folds(config.dataset, config.protocol, splits, seed)
    }
    official = next(iter(by_name.values()))
    entries = [Entry(name, model, by_name.get(name, official)) for name, model in trained.items()]
    title = str(options.workdir or f"{options.model} on {config.dataset}")
    return entries, data, class_names, title


def _read_workdir(workdir: Path) -> dict[str, Any]:
    try:
        return json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is not the folder of a run of main.py: {error}") from error


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line; the rest goes to the config."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__, allow_abbrev=False)
        command.set_defaults(function=function)
        return command

    def add_network(command: argparse.ArgumentParser) -> None:
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--workdir", type=Path, help="a finished run of main.py or eval.py")
        which.add_argument("--model", help="shipped weights by name, or a .safetensors file")
        command.add_argument("--dataset", default="fer2013", help="of --model; default: fer2013")

    def add_data(command: argparse.ArgumentParser) -> None:
        command.add_argument("--split", choices=PARTS, default="test", help="default: test")
        command.add_argument("--data-dir", default="data", help="the prepared data; default: data")
        command.add_argument("--manual-dir", default="", help="the raw data, if not yet prepared")

    command = add("evaluate", evaluate)
    add_network(command)
    add_data(command)
    command.add_argument("--flip", action="store_true", help="average with the mirrored face")
    command.add_argument("--predictions", type=Path, help="CSV file to write, with keys")
    command = add("regions", regions)
    add_network(command)
    add_data(command)
    command = add("robustness", robustness)
    command.add_argument("--workdirs", type=Path, nargs="+", required=True, help="finished runs")
    command.add_argument("--out", type=Path, required=True, help="folder for figure and numbers")
    add_data(command)
    command = add("table", table)
    command.add_argument("--runs", type=Path, default=Path("runs"), help="default: runs")
    command.add_argument("--all", action="store_true", help="name results without a run as well")
    command_line.add_options(add("cross-validate", cross_validate))
    command = add("seeds", seeds)
    command_line.add_options(command)
    command.add_argument("--num", type=int, default=5, help="how many; default: 5")
    command_line.add_options(add("folds", folds))
    options, rest = parser.parse_known_args(arguments)
    if rest and options.function not in (cross_validate, seeds, folds):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    return options, rest


def run(arguments: list[str]) -> None:
    """Runs one command."""
    options, rest = parse(arguments)
    if options.function in (cross_validate, seeds, folds):
        options.function(options, rest)
    else:
        options.function(options)


if __name__ == "__main__":
    run_command(lambda: run(sys.argv[1:]))
