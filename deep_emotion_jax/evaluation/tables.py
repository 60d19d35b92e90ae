"""The paper's results table beside ours, from the summaries of finished runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.figures import markdown_table


class Claim(NamedTuple):
    """What the paper says of a dataset; percentages of its test images named correctly."""

    dataset: str
    title: str
    protocol: str
    accuracy: str
    compared: str


PAPER = (
    Claim(
        "fer2013",
        "FER-2013",
        "official",
        "70.02",
        "bag of words 67.4, Mollahosseini et al. 66.4, VGG+SVM 66.31, GoogleNet 65.2",
    ),
    Claim(
        "ferg",
        "FERG",
        "paper",
        "99.3",
        "adversarial NN 98.2, ensemble multi-feature 97, DeepExpr 89.02",
    ),
    Claim(
        "jaffe", "JAFFE", "paper", "92.8", "CNN+SVM 95.31, salient patches 91.8, Fisherface 89.2"
    ),
    Claim(
        "ck_plus",
        "CK+",
        "paper",
        "98.0",
        "PPDN 97.3, DTAGN 97.2, IACNN 95.37, IB-CNN 95.1, Inception 93.2, 3DCNN-DAP 92.4",
    ),
)
"""arXiv 1902.01019, as commonly quoted; what "subjects" gives is not there."""

PROTOCOL_NAMES = {
    "official": "official split",
    "paper": "the paper's random split",
    "subjects": "nobody on two sides",
}


def results_table(folder: Path) -> str:
    """Markdown: dataset, protocol, the paper's claim, and each finished run found in a folder.

    A dataset and protocol without a finished run says "not run".

    Args:
      folder: holds workdirs, each with a summary.json, at any depth.

    Raises:
      UserError: if a summary.json is damaged.
    """
    found = [_read(path) for path in sorted(folder.rglob("summary.json"))]
    rows = []
    for claim in PAPER:
        protocols = ("official",) if claim.protocol == "official" else ("paper", "subjects")
        for protocol in protocols:
            paper = claim.accuracy if protocol == claim.protocol else "not given"
            compared = claim.compared if protocol == claim.protocol else ""
            head = (claim.title, PROTOCOL_NAMES[protocol], paper)
            ours = [
                run
                for run in found
                if (run["dataset"], run["protocol"]) == (claim.dataset, protocol)
            ]
            for run in ours:
                rows.append((*head, *run["cells"], compared))
            if not ours:
                rows.append((*head, "not run", "", "", "", compared))
    header = ("dataset", "protocol", "paper %", "ours %", "95 % interval", "runs", "folder")
    return markdown_table((*header, "compared there"), rows)


def mean_and_deviation(mean: float, std: float | None, digits: int) -> str:
    """A table's cell: shares in [0, 1] as percent; one run has no deviation (None)."""
    deviation = "" if std is None else f" ± {100 * std:.{digits}f}"
    return f"{100 * mean:.{digits}f}{deviation}"


def _read(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text())
        return {
            "dataset": summary["dataset"],
            "protocol": summary["protocol"],
            "cells": (*_cells(summary), path.parent.name),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not the summary of a run ({error!r}); run main.py with that --workdir again"
        ) from error


def _cells(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """Accuracy with deviation, interval and number of runs of one workdir."""
    part = "test" if "test" in summary["over_runs"] else "validation"
    ours = summary["over_runs"][part]
    # One run has an interval over test images, several have one over runs.
    low, high = ours["interval95"] or summary["runs"][0][part]["interval95"]
    return (
        mean_and_deviation(ours["mean"], ours["std"], digits=2)
        + (" (validation)" if part == "validation" else ""),
        f"{100 * low:.2f} to {100 * high:.2f}",
        str(ours["count"]),
    )
