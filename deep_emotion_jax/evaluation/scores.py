"""Scores of networks on one split, as text and as JSON."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deep_emotion_jax.evaluation import figures, metrics, tables
from deep_emotion_jax.evaluation.runs import Scored
from deep_emotion_jax.evaluation.subgroups import by_subject
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.model import DeepEmotion, count_parameters
from deep_emotion_jax.runtime.provenance import commit

SUBJECTS_SHOWN = 12


class Result(NamedTuple):
    """The scores of one network.

    Attributes:
      network: the network and its N images.
      score: the scores on all images.
      correct: bool [N], True for correctly classified images.
      without_copies: accuracy on images that are not in the training split; None if unknown.
    """

    network: Scored
    score: metrics.Metrics
    correct: np.ndarray
    without_copies: metrics.Accuracy | None


def score(network: Scored, logits: np.ndarray) -> Result:
    """Score the logits of a network on its images."""
    labels, copies = network.faces.labels, network.copies
    correct = logits.argmax(1) == labels
    without = None if copies is None else metrics.accuracy_of(correct[~copies])
    return Result(network, metrics.evaluate(logits, labels), correct, without)


def describe(results: Sequence[Result]) -> str:
    """Format scores, their mean, and accuracies without copies and by subject as text."""
    classes = results[0].network.trained.classes
    header = ("run", *tables.SCORES, *(f"recall {name}" for name in classes))
    rows = [(result.network.name, *tables.score_cells(result.score)) for result in results]
    parts = [tables.markdown_table(header, rows)]
    over_runs = metrics.mean_and_interval([result.score.accuracy for result in results])
    if over_runs.interval95 is not None:
        low, high = over_runs.interval95
        parts.append(
            f"accuracy over {over_runs.count} runs: {over_runs.mean:.2%}, standard deviation "
            f"{over_runs.std:.2%}, 95 % interval {low:.2%} to {high:.2%}\n"
        )
    for network, whole, _, without in results:
        if without and without.interval95 and without.accuracy is not None:
            low, high = without.interval95
            parts.append(
                f"{network.name} without the {whole.count - without.images} copies of training "
                f"faces: {without.accuracy:.2%}, 95 % interval {low:.2%} to {high:.2%}, "
                f"{without.images} images\n"
            )
    if groups := _subjects(results):
        shown = groups[:SUBJECTS_SHOWN]
        rows = [
            (
                group.subject,
                f"{100 * group.accuracy:.1f}",
                f"{100 * group.interval95[0]:.1f} to {100 * group.interval95[1]:.1f}",
                str(group.images),
            )
            for group in shown
        ]
        title = f"{len(groups)} subjects"
        if len(shown) < len(groups):
            title += f", the {len(shown)} with the lowest accuracy (--json FILE has all)"
        header = ("subject", "accuracy %", "95 % interval", "images")
        parts.append(f"{title}\n\n{tables.markdown_table(header, rows)}")
    return "\n".join(parts)


def record(results: Sequence[Result], part: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `eval.py evaluate --json`, with the fields of summary.json for tables.

    Args:
      results: the scores of each network.
      part: the split.
      about: metadata, see `about`.
    """
    over_runs = metrics.mean_and_interval([result.score.accuracy for result in results])
    without = None
    shares = [each.accuracy for *_, each in results if each and each.accuracy is not None]
    if len(shares) == len(results):
        without = dataclasses.asdict(metrics.mean_and_interval(shares))
        if len(results) == 1 and results[0].without_copies:
            without |= results[0].without_copies._asdict()
    return {
        **about,
        "classes": list(results[0].network.trained.classes),
        "over_runs": {part: dataclasses.asdict(over_runs)},
        "without_copies": {part: without},
        "subjects": [group._asdict() for group in _subjects(results)],
        "runs": [{"name": result.network.name, part: result.score.to_json()} for result in results],
    }


def about(name: str, config: Mapping[str, Any], model: DeepEmotion, device: str) -> dict[str, Any]:
    """Return the metadata of a record: network, dataset, command, commit, device and time."""
    return {
        "name": name,
        **{key: config[key] for key in ("dataset", "dataset_config", "protocol")},
        "parameters": count_parameters(model),
        "command": " ".join(sys.argv),
        "commit": commit(),
        "device": device,
        "finished": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def write(stem: Path, results: Sequence[Result], title: str) -> None:
    """Write scores to `stem`.json and their summed confusion matrix to `stem`.png and .csv."""
    matrix = np.sum([result.score.confusion_matrix for result in results], axis=0)
    figures.write_confusion(matrix, results[0].network.trained.classes, stem, title)
    over_runs = metrics.mean_and_interval([result.score.accuracy for result in results])
    runs = {result.network.name: result.score.to_json() for result in results}
    write_json(f"{stem}.json", {"over_runs": dataclasses.asdict(over_runs), "runs": runs})


def _subjects(results: Sequence[Result]) -> list[Any]:
    faces = results[0].network.faces
    keys = [key for result in results for key in result.network.faces.keys]
    subjects = [name for result in results for name in result.network.faces.subjects]
    whole = faces._replace(keys=keys, subjects=subjects)
    return by_subject(whole, np.concatenate([result.correct for result in results]))
