"""What a finished run leaves in its folder: summary, confusion matrices, curves, region maps."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from deep_emotion_jax import explain, metrics, report
from deep_emotion_jax.data import Split
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.fit import RunState
from deep_emotion_jax.model import count_parameters
from deep_emotion_jax.train import make_logits

REGION_FACES_PER_CLASS = 50


def claim_workdir(workdir: Path, config: ConfigDict, splits: dict[str, Split]) -> None:
    """Writes config.json, or checks that the folder holds a run of the same config and data.

    Raises:
      UserError: if the folder belongs to another config or other data, naming the differences.
    """
    data = {name: split.fingerprint() for name, split in splits.items()}
    # Where the data lies is no part of what is computed; its fingerprint is.
    settings = {
        key: value
        for key, value in config.to_dict().items()
        if key not in ("manual_dir", "data_dir")
    }
    mine = json.loads(json.dumps({"config": settings, "data": data}))
    path = workdir / "config.json"
    if path.exists():
        theirs = json.loads(path.read_text())
        differences = [
            f"{key}: {_leaves(theirs).get(key)} there, {_leaves(mine).get(key)} here"
            for key in sorted(_leaves(mine).keys() | _leaves(theirs).keys())
            if _leaves(mine).get(key) != _leaves(theirs).get(key)
        ]
        if differences:
            raise UserError(
                f"{workdir} holds a run of another config ({'; '.join(differences)}); "
                "give another --workdir, or the same settings to go on with it"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        report.write_json(path, mine)
    except OSError as error:
        raise UserError(f"cannot write to the workdir {workdir}: {error}") from error


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: value
        for key, branch in tree.items()
        for name, value in _leaves(branch, f"{prefix}.{key}".lstrip(".")).items()
    }


def write_results(
    model: nnx.Module,
    state: RunState,
    records: list[dict[str, Any]],
    splits: dict[str, Split],
    class_names: list[str],
    config: ConfigDict,
    workdir: Path,
) -> None:
    """Evaluates the best weights on every split but train's and writes the report.

    The test split, where there is one, is read here for the first time, once.
    """
    program = jax.jit(make_logits(model))
    weights = (state.best_params, state.best_stats)
    scores = {}
    for name in (name for name in splits if name != "train"):
        logits = np.asarray(program(*weights, splits[name].images))
        scores[name] = metrics.evaluate(logits, splits[name].labels)
        matrix = scores[name].confusion_matrix
        title = f"{config.dataset} {name}: {scores[name].accuracy:.2%}"
        report.confusion_matrix_png(matrix, class_names, workdir / f"confusion_{name}.png", title)
        report.confusion_matrix_csv(matrix, class_names, workdir / f"confusion_{name}.csv")
    report.curves_png(records, workdir / "curves.png")
    shown = "test" if "test" in splits else "validation"
    _write_regions(program, weights, splits[shown], class_names, shown, workdir / "regions.png")

    seconds = sum(record["seconds"] for record in records)
    summary = {
        "dataset": config.dataset,
        "parameters": count_parameters(model),
        "best_epoch": int(state.best_epoch),
        "accuracy": {name: score.accuracy for name, score in scores.items()},
        "splits": {name: score.to_json() for name, score in scores.items()},
        "examples": {name: len(split.labels) for name, split in splits.items()},
        "seconds": seconds,
        "images_per_second": len(records) * len(splits["train"].labels) / seconds,
        "fingerprints": {name: split.fingerprint() for name, split in splits.items()},
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "device": jax.devices()[0].device_kind,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "optax")},
        },
    }
    report.write_json(workdir / "summary.json", summary)
    for name, score in scores.items():
        low, high = score.interval95
        print(
            f"{name}: accuracy {score.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
            f"macro-F1 {score.macro_f1:.3f}, {score.count} images"
        )
    print(f"results in {workdir}: summary.json, confusion_*.png, curves.png, regions.png")


def _write_regions(
    program: Any, weights: Any, split: Split, class_names: list[str], name: str, path: Path
) -> None:
    """The paper's region maps over the first correctly named faces of each expression."""
    images = split.images.astype(np.float32) / 255
    right = np.asarray(program(*weights, split.images)).argmax(-1) == split.labels
    chosen = np.concatenate(
        [
            np.flatnonzero(right & (split.labels == label))[:REGION_FACES_PER_CLASS]
            for label in range(len(class_names))
        ]
    )
    maps = explain.occlusion_maps(
        lambda weights, images: program(*weights, images),
        weights,
        images[chosen],
        split.labels[chosen],
    )
    labels = split.labels[chosen]
    report.regions_png(
        explain.average_by_class(maps, labels, len(class_names)),
        explain.average_by_class(images[chosen][..., 0], labels, len(class_names)),
        class_names,
        path,
        f"Where covering an 8 x 8 square changes the answer ({name})",
    )


def _commit() -> str | None:
    """The git commit of the code that ran, "-dirty" if changed, or None outside a repository."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None
