"""What a finished run leaves in its folder: summary, confusion matrices, curves, region maps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import figures, metrics
from deep_emotion_jax.evaluation.health import check_health
from deep_emotion_jax.evaluation.regions import write_regions
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.logits import assemble, make_logits, split_model
from deep_emotion_jax.nn.model import DeepEmotion, count_parameters
from deep_emotion_jax.nn.weights import save_model
from deep_emotion_jax.training.selection import describe_rule
from deep_emotion_jax.training.validation import RunState

HEALTH_FACES = 300


def write_results(
    models: Sequence[DeepEmotion],
    state: RunState,
    records: list[dict[str, Any]],
    data: Split,
    runs: Sequence[Run],
    class_names: list[str],
    config: ConfigDict,
    provenance: dict[str, Any],
    workdir: Path,
) -> None:
    """Evaluates the best weights of every run and writes the report.

    The test examples, where there are any, are read here for the first time, once.
    """
    program = jax.jit(make_logits(models[0]))
    (workdir / "weights").mkdir(exist_ok=True)
    trained = _best_models(models, state)
    entries: list[dict[str, Any]] = []
    scores: dict[str, list[metrics.Metrics]] = {"validation": [], "test": []}
    for i, run in enumerate(runs):
        some = run.fold.train[:: max(1, len(run.fold.train) // HEALTH_FACES)]
        health = check_health(trained[i], data.images[some])
        collapsed = _collapsed(records[i - len(runs)], data.labels[run.fold.train])
        entry: dict[str, Any] = {
            "name": run.name,
            "seed": run.seed,
            "best_epoch": int(state.best_epoch[i]),
            "chosen": describe_rule(len(run.fold.validation)),
            "problem": collapsed or health.problem,
            "dead_units": health.dead,
            "theta": health.theta and health.theta._asdict(),
            "examples": {part: len(getattr(run.fold, part)) for part in ("train", *scores)},
        }
        for part in scores:
            index = getattr(run.fold, part)
            if len(index):
                logits = np.asarray(program(*split_model(trained[i]), data.images[index]))
                scores[part].append(metrics.evaluate(logits, data.labels[index]))
                entry[part] = scores[part][-1].to_json()
        entries.append(entry)
        about = {
            "run": run.name,
            "commit": provenance["commit"],
            "validation": entry["validation"]["accuracy"],
        }
        save_model(
            workdir / "weights" / f"{run.name}.safetensors",
            trained[i],
            config.model.to_dict(),
            class_names,
            about,
        )
    scores = {part: found for part, found in scores.items() if found}

    for part, found in scores.items():
        matrix = np.sum([score.confusion_matrix for score in found], axis=0)
        title = f"{config.dataset} {part}: {np.trace(matrix) / matrix.sum():.2%}"
        figures.confusion_matrix_png(matrix, class_names, workdir / f"confusion_{part}.png", title)
        figures.confusion_matrix_csv(matrix, class_names, workdir / f"confusion_{part}.csv")
    figures.curves_png(_mean_over_runs(records, len(runs)), workdir / "curves.png")
    shown = "test" if "test" in scores else "validation"
    faces = data.select(getattr(runs[0].fold, shown))
    write_regions(trained[0], faces, class_names, shown, workdir / "regions.png")

    accuracies = {
        part: metrics.mean_and_interval([score.accuracy for score in found])
        for part, found in scores.items()
    }
    seconds = sum(record["seconds"] for record in records[:: len(runs)])
    passed = sum(len(run.fold.train) for run in runs) * len(records) / len(runs)
    summary = {
        "dataset": config.dataset,
        "dataset_config": config.dataset_config,
        "protocol": config.protocol,
        "classes": class_names,
        "parameters": count_parameters(models[0]),
        "accuracy": {part: summary.mean for part, summary in accuracies.items()},
        "over_runs": {part: dataclasses.asdict(summary) for part, summary in accuracies.items()},
        "runs": entries,
        "seconds": seconds,
        "images_per_second": passed / seconds,
        **{key: value for key, value in provenance.items() if key != "runs"},
    }
    write_json(workdir / "summary.json", summary)
    for part, found in scores.items():
        print(_sentence(part, found, accuracies[part]))
    for entry in entries:
        if entry["problem"]:
            print(f"warning: {entry['name']}: {entry['problem']}")
    print(f"results in {workdir}: summary.json, weights/, confusion_*.png, curves.png, regions.png")


def _best_models(models: Sequence[DeepEmotion], state: RunState) -> list[DeepEmotion]:
    def best(i: int) -> tuple[Any, Any]:
        return jax.tree.map(lambda leaf: leaf[i], (state.best_params, state.best_stats))

    return [assemble(model, *best(i)) for i, model in enumerate(models)]


def _collapsed(last: dict[str, Any], labels: np.ndarray) -> str | None:
    """What to do if a run ended no better on its training images than the commonest class."""
    if last["train_accuracy"] > np.bincount(labels).max() / len(labels) + 0.02:
        return None
    return (
        "collapsed: it fits its own training images no better than naming the commonest class; "
        "lower recipe.learning_rate or change the seed"
    )


def _mean_over_runs(records: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    epochs = [records[i : i + count] for i in range(0, len(records), count)]
    return [
        {name: np.mean([record[name] for record in epoch]) for name in epoch[0] if name != "run"}
        for epoch in epochs
    ]


def _sentence(part: str, scores: list[metrics.Metrics], over_runs: metrics.Summary) -> str:
    if len(scores) == 1:
        low, high = scores[0].interval95
        return (
            f"{part}: accuracy {scores[0].accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
            f"macro-F1 {scores[0].macro_f1:.3f}, {scores[0].count} images"
        )
    lowest = min(score.accuracy for score in scores)
    return (
        f"{part}: accuracy {over_runs.mean:.2%}, standard deviation {over_runs.std:.2%} over "
        f"{len(scores)} runs, the lowest {lowest:.2%}"
    )
