"""Evaluate trained networks: scores, tables, cross-validation, region maps.

Example:
  python eval.py evaluate --workdir runs/fer2013 --split validation

Each command has its own --help.
"""

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs import command_line
from deep_emotion_jax.cli.options import HelpFormatter, add_device, network, path
from deep_emotion_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

    from deep_emotion_jax.data.split import Split
    from deep_emotion_jax.evaluation.metrics import Metrics
    from deep_emotion_jax.evaluation.runs import Scored

# JAX and all that needs it are imported in the commands, so that --help is fast.

AVERAGING = {
    "none": "",
    "mirror": " with flip averaging",
    "shifts": " averaged over five shifts",
    "ten": " averaged over ten crops",
}
SPLITS = ("train", "validation", "test", "all")


class Selection(NamedTuple):
    """The networks to score, a title for results, where files go, and facts for a record."""

    networks: "list[Scored]"
    title: str
    folder: Path
    about: dict[str, Any]


def cross_validate(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Train every fold of the subject-independent protocol, in one program.

    Example:
      python eval.py cross-validate --config configs/ck_plus.py --config.manual_dir=PATH
    """
    _train(options, [*overrides, "--config.protocol=subjects"], "_subjects")


def seeds(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Train one config with several seeds, in one program.

    Example:
      python eval.py seeds --config configs/fer2013.py --config.manual_dir=PATH --num 3
    """
    _train(options, overrides, "_seeds", options.num)


def folds(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Print fold, split and key of every example, one per line.

    Example:
      python eval.py folds --config configs/ck_plus.py --config.manual_dir=PATH
    """
    from datasets.load import load_dataset
    from deep_emotion_jax.data.folds import join, make_folds
    from deep_emotion_jax.evaluation.runs import PARTS

    config, _ = command_line.read_config(options.config, overrides)
    splits, _ = load_dataset(config)
    keys = join(splits).keys
    for fold in make_folds(config.dataset, config.protocol, splits, config.seed):
        for part in PARTS:
            for key in sorted(keys[i] for i in getattr(fold, part)):
                print(f"{fold.name}\t{part}\t{key}")


def table(options: argparse.Namespace) -> None:
    """Print the results of all finished runs beside the paper's, as Markdown.

    With --readme, write docs/results.json and the table of README.md instead: results named by
    --json are added, and replace those of the same dataset, protocol, network and split.

    Example:
      python eval.py table --runs runs
    """
    from deep_emotion_jax.evaluation import readme, tables

    if options.readme:
        readme.update(Path(__file__).parent, options.json)
    else:
        print(tables.results_table(options.runs, options.json, with_missing=options.all))


def evaluate(options: argparse.Namespace) -> None:
    """Score the networks of a run, or one network, on a split.

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
    averaging = AVERAGING[options.tta]
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
        found = {result.network.name: result.score for result in results}
        _write_scores(stem, found, classes, f"{selection.title} {options.split}{averaging}")


def calibrate(options: argparse.Namespace) -> None:
    """Fit the temperature of a network, which makes its probabilities match its accuracy.

    Runs of main.py fit their own. The copy that --save writes has it in its description, where
    the predictor reads it.

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
        print(f"the network with its temperature is in {options.save}")


def regions(options: argparse.Namespace) -> None:
    """Draw the regions that matter; score the maps where the true regions are known.

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
    """Compare networks on shifted, rotated and scaled faces, as mean and deviation over the runs.

    Example:
      python eval.py robustness --workdirs runs/with runs/without --out runs/attention
    """
    from deep_emotion_jax.evaluation import figures, metrics, tables
    from deep_emotion_jax.evaluation.robustness import AMOUNTS, CHANGES, accuracy_under_change
    from deep_emotion_jax.files import write_json

    curves = {}
    for workdir in options.workdirs:
        options.workdir = workdir
        found = [
            accuracy_under_change(trained.model, faces.images, faces.labels)
            for _, trained, faces, _ in _select(options).networks
        ]
        curves[workdir.name] = {change: [run[change] for run in found] for change in CHANGES}
    rows = []
    for name, changes in curves.items():
        for change, runs in changes.items():
            over_runs = [metrics.mean_and_interval(shares) for shares in zip(*runs, strict=True)]
            cells = [tables.mean_and_deviation(x.mean, x.std, digits=1) for x in over_runs]
            rows.append((name, change, *cells))
    print(tables.markdown_table(("network", "change", *(f"{a:.0%}" for a in AMOUNTS)), rows))
    options.out.mkdir(parents=True, exist_ok=True)
    figure, numbers = options.out / "robustness.png", options.out / "robustness.json"
    figures.robustness_png(curves, AMOUNTS, figure, f"Accuracy on changed {options.split} faces")
    write_json(numbers, {"amounts": AMOUNTS, "accuracy": curves})
    print(f"\nresults in {figure}, {numbers}")


def _train(
    options: argparse.Namespace, overrides: Sequence[str], suffix: str, num: int | None = None
) -> None:
    """Train all folds of a config, with `num` seeds from its own on; None for its own alone."""
    from datasets.load import load_dataset
    from deep_emotion_jax.runtime.devices import choose_devices
    from deep_emotion_jax.training.experiment import run

    config, name = command_line.read_config(options.config, overrides)
    choose_devices(config.accelerator, config.num_devices)  # fails before the data are read
    workdir = options.workdir or Path(f"runs/{name}{suffix}")
    chosen = None if num is None else range(config.seed, config.seed + num)
    run(config, *load_dataset(config), workdir, chosen)


def _select(options: argparse.Namespace) -> Selection:
    """Load the networks of the options and the images they are scored on."""
    from datasets.load import load_dataset
    from deep_emotion_jax.data.folds import join
    from deep_emotion_jax.evaluation import runs
    from deep_emotion_jax.pretrained import load_pretrained
    from deep_emotion_jax.runtime.devices import choose_devices, describe

    print(describe(choose_devices(options.device)))
    config, _ = command_line.read_config(None)
    finished = runs.read_run(options.workdir) if options.workdir else None
    if finished:
        for key, value in {**finished.config, **finished.paths}.items():
            if key in config and not isinstance(value, dict):  # what prepares and reads the data
                config[key] = value
    else:
        config.dataset, config.protocol = options.dataset, "official"
    for name in ("data_dir", "manual_dir", "detector"):
        if given := getattr(options, name):
            config[name] = str(given)
    config.streaming = "never"  # a whole split is scored at once
    official = finished is None or finished.config["protocol"] == "official"
    wanted = [options.split] if official and options.split != "all" else None
    splits, class_names = load_dataset(config, wanted)
    if finished:
        networks = finished.networks
        faces = runs.faces_of_run(finished, splits, options.split)
    else:
        name = options.model
        name = Path(name).stem if name.endswith(".safetensors") else name
        networks = {name: load_pretrained(options.model)}
        faces = {name: join(splits)}
    copies = None
    if wanted and options.split != "train":
        copies = _copies_of_training(config, splits[options.split])
    scored = []
    for name, trained in networks.items():
        own, names = faces[name], class_names
        if mapping := getattr(options, "classes", None):
            own, names = runs.rename_classes(own, class_names, mapping)
        own = runs.in_order_of(trained.classes, own, names)
        scored.append(runs.Scored(name, trained, own, None if mapping else copies))
    title = str(options.workdir or f"{options.model} on {config.dataset}")
    return Selection(scored, title, options.workdir or Path(), _about(options, config, scored))


def _copies_of_training(config: "ConfigDict", faces: "Split") -> "np.ndarray | None":
    """Return which faces of a split are also in the training split; None if that is unknown."""
    from datasets.load import load_dataset
    from deep_emotion_jax.evaluation import runs

    if faces.copies is None:
        return None
    try:
        splits, _ = load_dataset(config, ["train"])
    except UserError:  # The owner has this split alone.
        return None
    return runs.copies_of_training(faces, splits["train"])


def _about(options: argparse.Namespace, config: "ConfigDict", scored: "list[Scored]") -> dict:
    """Return what a record says of networks, data and circumstances."""
    from datetime import UTC, datetime

    from deep_emotion_jax.nn.model import count_parameters
    from deep_emotion_jax.runtime.devices import choose_devices, describe
    from deep_emotion_jax.runtime.provenance import commit

    return {
        "name": options.workdir.resolve().name if options.workdir else scored[0].name,
        **{key: config[key] for key in ("dataset", "dataset_config", "protocol")},
        "parameters": count_parameters(scored[0].trained.model),
        "command": " ".join(sys.argv),
        "commit": commit(),
        "device": describe(choose_devices(options.device)),
        "finished": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _write_scores(
    stem: Path, scores: "dict[str, Metrics]", classes: Sequence[str], title: str
) -> None:
    """Write the scores of all runs as JSON, and their confusion matrix as a figure and as CSV."""
    import numpy as np

    from deep_emotion_jax.evaluation import figures, metrics
    from deep_emotion_jax.files import write_json

    matrix = np.sum([score.confusion_matrix for score in scores.values()], axis=0)
    figures.write_confusion(matrix, classes, stem, title)
    over_runs = metrics.mean_and_interval([score.accuracy for score in scores.values()])
    runs = {name: score.to_json() for name, score in scores.items()}
    write_json(f"{stem}.json", {"over_runs": dataclasses.asdict(over_runs), "runs": runs})
    print(f"\nresults in {stem.parent}: {stem.name}.json, {stem.name}.png, {stem.name}.csv")


def _add_network(command: argparse.ArgumentParser) -> None:
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", type=path, metavar="FOLDER", help="folder of a finished run")
    which.add_argument(
        "--model", type=network, metavar="NAME_OR_PATH", help="a shipped network or a .safetensors"
    )
    _add_dataset(command)


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dataset", default="fer2013", help="the images for --model (default: %(default)s)"
    )


def _class_map(text: str) -> dict[str, str | None]:
    """Read --classes.

    Raises:
      argparse.ArgumentTypeError: if it is no JSON object of strings and nulls.
    """
    try:
        names = json.loads(path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error}") from error
    if not isinstance(names, dict) or not all(
        name is None or isinstance(name, str) for name in names.values()
    ):
        raise argparse.ArgumentTypeError(f"{text} is not a JSON object of names, or null")
    return names


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--split", choices=SPLITS, default="test", help="images to score (default: %(default)s)"
    )
    command.add_argument(
        "--data-dir",
        type=path,
        metavar="FOLDER",
        help="the prepared data (default: that of the run, else data)",
    )
    command.add_argument(
        "--manual-dir",
        type=path,
        metavar="PATH",
        help="the raw data, if not yet prepared (default: that of the run)",
    )
    command.add_argument(
        "--detector",
        choices=("none", "builtin"),
        help="of your own folder, score the square in the middle of each picture, or its largest "
        "face (default: that of the run, else none)",
    )
    add_device(command)


def _add_settings(command: argparse.ArgumentParser, suffix: str, *, required: bool) -> None:
    command_line.add_options(command, config_required=required, suffix=suffix)
    command.epilog = command_line.SETTINGS_HELP
    command.set_defaults(takes_settings=True)


def _add_command(
    commands: "argparse._SubParsersAction", name: str, function: Callable[..., None]
) -> argparse.ArgumentParser:
    """Add a command that is described by the docstring of its function."""
    summary, _, rest = (function.__doc__ or "").partition("\n")
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n{textwrap.dedent(rest)}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(function=function)
    return command


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    views = command.add_mutually_exclusive_group()
    views.add_argument(
        "--tta",
        choices=tuple(AVERAGING),
        default="none",
        help="average the probabilities over views of each face: with its mirror image, shifted by "
        "3 pixels to each corner, or both (default: %(default)s)",
    )
    views.add_argument(
        "--flip", dest="tta", action="store_const", const="mirror", help="short for --tta mirror"
    )
    command.add_argument(
        "--predictions", type=path, metavar="FILE", help="write predictions as CSV (default: no)"
    )
    command.add_argument(
        "--json", type=path, metavar="FILE", help="write scores for `table --json` (default: no)"
    )
    command.add_argument(
        "--classes",
        type=_class_map,
        metavar="FILE",
        help="JSON object from class names of the images to those of the network, or null to leave "
        "a class out (default: the same names)",
    )


def _add_table(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runs",
        type=path,
        metavar="FOLDER",
        default=Path("runs"),
        help="folder of finished runs (default: %(default)s)",
    )
    command.add_argument(
        "--all", action="store_true", help="name results without a run as well (default: no)"
    )
    command.add_argument(
        "--json",
        type=path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="files of evaluate --json, or a summary.json (default: none)",
    )
    command.add_argument(
        "--readme", action="store_true", help="rewrite the table of README.md (default: no)"
    )


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[..., None]) -> argparse.ArgumentParser:
        return _add_command(commands, name, function)

    command = add("evaluate", evaluate)
    _add_network(command)
    _add_data(command)
    _add_evaluate(command)
    command = add("calibrate", calibrate)
    command.add_argument(
        "--model",
        type=network,
        metavar="NAME_OR_PATH",
        required=True,
        help="a shipped network or a .safetensors",
    )
    _add_dataset(command)
    _add_data(command)
    command.set_defaults(split="validation")
    command.add_argument(
        "--save", type=path, metavar="FILE", help="write the network with it (default: no)"
    )
    command = add("regions", regions)
    _add_network(command)
    _add_data(command)
    command = add("robustness", robustness)
    command.add_argument(
        "--workdirs",
        type=path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="folders of finished runs",
    )
    command.add_argument(
        "--out", type=path, required=True, metavar="FOLDER", help="folder for figure and numbers"
    )
    _add_data(command)
    command = add("table", table)
    _add_table(command)
    command = add("cross-validate", cross_validate)
    _add_settings(command, "_subjects", required=True)
    _add_settings(add("folds", folds), "", required=False)
    command = add("seeds", seeds)
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
