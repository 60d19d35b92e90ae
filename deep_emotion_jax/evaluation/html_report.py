"""The report of a finished run as one HTML page; figures and faces are embedded as data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from flax.traverse_util import flatten_dict
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation.calibration import curve, draw_curves
from deep_emotion_jax.evaluation.metrics import class_scores
from deep_emotion_jax.evaluation.subgroups import by_subject
from deep_emotion_jax.files import write_text

MISTAKES = 24
TEMPLATE = "report.html"


class Predictions(NamedTuple):
    """The predictions of all runs on one split, one run after the other.

    Attributes:
      faces: N images; several runs may contain the same image.
      logits: [N, K].
      temperatures: [N], the temperature of the row's run.
    """

    faces: Split
    logits: np.ndarray
    temperatures: np.ndarray


def write_page(
    summary: Mapping[str, Any],
    predictions: Mapping[str, Predictions],
    workdir: Path,
    name: str = "report.html",
) -> None:
    """Write the page and `calibration.png` to the run's folder.

    Args:
      summary: the content of summary.json.
      predictions: split -> predictions; "validation", and "test" if there are test images.
      workdir: the folder of the run; its curves.png and regions.png are embedded if they exist.
      name: name of the page's file.
    """
    part = "test" if "test" in predictions else "validation"
    shown = predictions[part]
    classes = summary["classes"]
    scaled = shown.logits / shown.temperatures[:, None]
    curves = {"raw": curve(shown.logits, shown.faces.labels)}
    if (shown.temperatures != 1).any():
        curves["with temperature"] = curve(scaled, shown.faces.labels)
    draw_curves(curves, workdir / "calibration.png", f"Calibration on {part} images")
    matrix = np.sum([run[part]["confusion_matrix"] for run in summary["runs"]], axis=0)
    correct = shown.logits.argmax(1) == shown.faces.labels
    text = _template().render(
        summary=summary,
        part=part,
        classes=classes,
        settings=flatten_dict(summary["config"], sep="."),
        confusion=_confusion(matrix),
        class_scores=list(zip(classes, class_scores(matrix), strict=True)),
        subjects=by_subject(shown.faces, correct),
        mistakes=_mistakes(shown.faces, scaled, classes),
        figures={
            stem: _data_uri((workdir / f"{stem}.png").read_bytes())
            for stem in ("curves", "regions", "calibration")
            if (workdir / f"{stem}.png").exists()
        },
    )
    write_text(workdir / name, text)


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # class names, keys and paths come from data
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda x: "-" if x is None else f"{100 * x:.1f}"
    return environment.get_template(TEMPLATE)


def _confusion(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    """Return the count of each cell and its share of the row."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return [
        list(zip(row, share, strict=True))
        for row, share in zip(matrix.tolist(), shares.tolist(), strict=True)
    ]


def _mistakes(faces: Split, logits: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the misclassified faces with the least probable true class, worst first."""
    shares = scipy.special.softmax(logits, axis=1)
    of_truth = shares[np.arange(len(shares)), faces.labels]
    predicted = logits.argmax(1)
    worst: dict[str, dict[str, Any]] = {}
    for i in np.argsort(of_truth, kind="stable"):
        if len(worst) == MISTAKES:
            break
        if predicted[i] != faces.labels[i]:
            mistake = {
                "key": faces.keys[i],
                "face": _face_uri(faces.images[i]),
                "true": classes[faces.labels[i]],
                "predicted": classes[predicted[i]],
                "confidence": shares[i].max(),
                "of_truth": of_truth[i],
            }
            worst.setdefault(faces.keys[i], mistake)
    return list(worst.values())


def _face_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return _data_uri(buffer.getvalue())


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
