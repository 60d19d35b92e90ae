"""Writes the report of a run: summary, weights, confusion matrices, curves and regions."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deep_emotion_jax.data.folds import Run
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import calibration, figures, metrics
from deep_emotion_jax.evaluation.health import check_health
from deep_emotion_jax.evaluation.html_report import Predictions, write_page
from deep_emotion_jax.evaluation.regions import write_regions
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.nn.model import DeepEmotion, count_parameters
from deep_emotion_jax.nn.weights import save_model

HEALTH_FACES = 300
Scores = dict[str, list[metrics.Metrics]]
"""Split ("validation" or "test") -> scores of every run."""
AllLogits = dict[str, list[np.ndarray]]
"""Split -> logits [N, K] of every run."""


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a training.

    Attributes:
      models: the network of every run, with the chosen weights.
      best_epochs: the epoch of these weights, for every run.
      chosen_by: the rule that chose them, in words, for every run.
      restarts: the number of restarts of every run, see `training.restart`.
      records: metrics; each epoch has one record per run, in the order of `runs`.
      data: all examples; the folds index them.
      runs: fold and seed of every run.
      class_names: names of the K classes.
      config: the settings of the experiment.
      provenance: see `workdir.provenance`.
      workdir: the folder to write to.
    """

    models: Sequence[DeepEmotion]
    best_epochs: Sequence[int]
    chosen_by: Sequence[str]
    restarts: Sequence[int]
    records: Sequence[dict[str, Any]]
    data: Split
    runs: Sequence[Run]
    class_names: Sequence[str]
    config: ConfigDict
    provenance: Mapping[str, Any]
    workdir: Path


def write_results(results: Results) -> None:
    """Evaluate every run and write the report.

    Test examples are first read here.
    """
    (results.workdir / "weights").mkdir(exist_ok=True)
    scores: Scores = {"validation": [], "test": []}
    logits: AllLogits = {"validation": [], "test": []}
    entries = [_evaluate_run(results, i, scores, logits) for i in range(len(results.runs))]
    scores = {part: found for part, found in scores.items() if found}
    _draw(results, scores)
    accuracies = {
        part: metrics.mean_and_interval([score.accuracy for score in found])
        for part, found in scores.items()
    }
    summary = _summary(results, entries, accuracies)
    write_json(results.workdir / "summary.json", summary)
    pooled = {part: _pool(results, part, logits[part], entries) for part in scores}
    write_page(summary, pooled, results.workdir)
    for part, found in scores.items():
        print(_sentence(part, found, accuracies[part]))
    for entry in entries:
        if entry["restarts"]:
            print(f"note: {entry['name']} was dead and restarted {entry['restarts']} times")
        if entry["problem"]:
            print(f"warning: {entry['name']}: {entry['problem']}")
    files = "report.html, summary.json, weights/, confusion_*.png, curves.png, regions.png"
    print(f"results in {results.workdir}: {files}")


def _evaluate_run(results: Results, i: int, scores: Scores, logits: AllLogits) -> dict[str, Any]:
    """Score one run, save its weights, append to `scores` and `logits`, and return its entry."""
    run, model, data = results.runs[i], results.models[i], results.data
    some = run.fold.train[:: max(1, len(run.fold.train) // HEALTH_FACES)]
    health = check_health(model, data.images[some])
    last = results.records[i - len(results.runs)]
    entry: dict[str, Any] = {
        "name": run.name,
        "seed": run.seed,
        "best_epoch": int(results.best_epochs[i]),
        "chosen": results.chosen_by[i],
        "restarts": results.restarts[i],
        "problem": _collapsed(last, data.labels[run.fold.train]) or health.problem,
        "dead_units": health.dead,
        "theta": health.theta and health.theta._asdict(),
        "examples": {part: len(getattr(run.fold, part)) for part in ("train", *scores)},
    }
    copies = data.copies_of(run.fold.train)
    outcomes = {}
    for part in scores:
        index = getattr(run.fold, part)
        if len(index):
            found, labels = predict_logits(model, data.images[index]), data.labels[index]
            outcomes[part] = (found, labels)
            logits[part].append(found)
            scores[part].append(metrics.evaluate(found, labels))
            entry[part] = scores[part][-1].to_json()
            if data.copies is not None:
                own = ~copies[index]
                entry[part]["without_copies"] = metrics.accuracy_of(
                    (found.argmax(1) == labels)[own]
                )._asdict()
    temperature = calibration.fit_temperature(*outcomes["validation"])
    entry["temperature"] = temperature
    entry["calibration_error"] = calibration.errors(temperature, outcomes)
    _save(results, i, entry)
    return entry


def _save(results: Results, i: int, entry: Mapping[str, Any]) -> None:
    """Save the weights of one run."""
    about = {
        "run": entry["name"],
        "commit": results.provenance["commit"],
        "validation": entry["validation"]["accuracy"],
        "temperature": entry["temperature"],
        "calibration_error": entry["calibration_error"],
    }
    path = results.workdir / "weights" / f"{entry['name']}.safetensors"
    settings = results.config.model.to_dict()
    save_model(path, results.models[i], settings, results.class_names, about)


def _pool(
    results: Results, part: str, logits: Sequence[np.ndarray], entries: Sequence[Mapping[str, Any]]
) -> Predictions:
    """Return the predictions of all runs on one split."""
    places = [getattr(run.fold, part) for run in results.runs]
    temperatures = [entry["temperature"] for entry in entries]
    return Predictions(
        results.data.select(np.concatenate(places)),
        np.concatenate(logits),
        np.repeat(temperatures, [len(index) for index in places]),
    )


def _collapsed(last: Mapping[str, Any], labels: np.ndarray) -> str | None:
    """Return a warning if a run is no better than predicting the most frequent class."""
    if last["train_accuracy"] > np.bincount(labels).max() / len(labels) + 0.02:
        return None
    return (
        "collapsed: its training accuracy is no better than always predicting the most frequent "
        "class; lower recipe.learning_rate or change the seed"
    )


def _draw(results: Results, scores: Scores) -> None:
    """Draw the summed confusion matrices, mean learning curves and the first run's regions."""
    workdir, count = results.workdir, len(results.runs)
    for part, found in scores.items():
        matrix = np.sum([score.confusion_matrix for score in found], axis=0)
        title = f"{results.config.dataset} {part}"
        figures.write_confusion(matrix, results.class_names, workdir / f"confusion_{part}", title)
    best_epoch = int(results.best_epochs[0]) if count == 1 else None
    figures.curves_png(_mean_over_runs(results.records, count), workdir / "curves.png", best_epoch)
    shown = "test" if "test" in scores else "validation"
    faces = results.data.select(getattr(results.runs[0].fold, shown))
    path = workdir / "regions.png"
    write_regions(results.models[0], faces, list(results.class_names), shown, path)


def _mean_over_runs(records: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    epochs = [records[i : i + count] for i in range(0, len(records), count)]
    return [
        {name: np.mean([record[name] for record in epoch]) for name in epoch[0] if name != "run"}
        for epoch in epochs
    ]


def _summary(
    results: Results, entries: list[dict[str, Any]], accuracies: Mapping[str, metrics.Summary]
) -> dict[str, Any]:
    """Return the content of summary.json."""
    config, records, count = results.config, results.records, len(results.runs)
    # The seconds of the epochs exclude compilation.
    seconds = sum(record["seconds"] for record in records[::count])
    steps = sum(record["steps"] for record in records[::count])
    images = sum(len(run.fold.train) for run in results.runs) * len(records) / count
    return {
        "dataset": config.dataset,
        "dataset_config": config.dataset_config,
        "protocol": config.protocol,
        "classes": list(results.class_names),
        "parameters": count_parameters(results.models[0]),
        "accuracy": {part: summary.mean for part, summary in accuracies.items()},
        "over_runs": {part: dataclasses.asdict(summary) for part, summary in accuracies.items()},
        "without_copies": {part: _without_copies(entries, part) for part in accuracies},
        "runs": entries,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "steps_per_second": steps / seconds,
        "finished": datetime.now(UTC).isoformat(timespec="minutes"),
        **{key: value for key, value in results.provenance.items() if key not in ("runs", "paths")},
    }


def _without_copies(entries: Sequence[Mapping[str, Any]], part: str) -> dict[str, Any] | None:
    """Return the accuracy over runs without copies of training faces; None if unknown."""
    found = [entry[part]["without_copies"] for entry in entries if "without_copies" in entry[part]]
    if not found or any(each["accuracy"] is None for each in found):
        return None
    over_runs = dataclasses.asdict(metrics.mean_and_interval([each["accuracy"] for each in found]))
    over_runs["images"] = sum(each["images"] for each in found)
    if len(found) == 1:
        over_runs["interval95"] = found[0]["interval95"]
    return over_runs


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
