"""Markdown tables: scores of networks, and the paper's results beside those of finished runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.metrics import Metrics


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table whose columns are aligned in the source as well.

    Args:
      header: the column titles.
      rows: one cell per column each, formatted by `str`; the first column is aligned left, the
        others right.

    Raises:
      ValueError: a row is longer or shorter than the header.
    """
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"Expected {len(header)} cells, got {len(line)}: {line}.")
    alignment = ["left", *["right"] * (len(header) - 1)]
    table = tabulate(
        lines[1:], lines[0], tablefmt="pipe", disable_numparse=True, colalign=alignment
    )
    return table + "\n"


def mean_and_deviation(mean: float, std: float | None, digits: int) -> str:
    """Format shares in [0, 1] as percent, such as "63.7 ± 0.4"; a single run has no deviation."""
    deviation = "" if std is None else f" ± {100 * std:.{digits}f}"
    return f"{100 * mean:.{digits}f}{deviation}"


SCORES = ("accuracy %", "95 % interval", "macro-F1", "calibration error")


def score_cells(score: Metrics) -> tuple[str, ...]:
    """Format the columns `SCORES`, then the recall of each class in percent."""
    low, high = score.interval95
    return (
        f"{100 * score.accuracy:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{score.macro_f1:.3f}",
        f"{score.calibration_error:.3f}",
        *("-" if share is None else f"{100 * share:.1f}" for share in score.per_class_recall),
    )


def truth_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Format what `regions.truth_scores` returns."""
    chance = scores["chance"]
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
        if method != "chance"
    ]
    title = f"{chance['faces']} faces; the true regions cover {chance['mask']:.1%} of them"
    return f"{title}\n\n{markdown_table(header, rows)}"


class Claim(NamedTuple):
    """What the paper claims for a dataset: accuracies in percent on its test images."""

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
"""arXiv 1902.01019, as commonly quoted. The paper has no subject-independent results."""

OTHER_TITLES = {"synthetic_faces": "generated faces"}

PROTOCOL_NAMES = {
    "official": "official split",
    "paper": "the paper's random split",
    "subjects": "subject-independent",
}


def results_table(folder: Path, *, with_missing: bool = False) -> str:
    """Format dataset, protocol, the paper's claim and our result of every finished run.

    Args:
      folder: holds workdirs, each with a summary.json, at any depth.
      with_missing: add a row "not run" for each result of the paper without a run.

    Raises:
      UserError: if no run is found, or a summary.json is damaged.
    """
    runs = [_read(path) for path in sorted(folder.rglob("summary.json"))]
    if not runs and not with_missing:
        raise UserError(f"no finished run (summary.json) is in {folder}; give another --runs DIR")
    if with_missing:
        found = {run[:2] for run in runs}
        runs += [_Row(*key, _NOT_RUN) for key in _PAPER_ROWS if key not in found]
    # The paper's datasets come first and in its order.
    order = {claim.dataset: place for place, claim in enumerate(PAPER)}
    runs.sort(key=lambda run: (order.get(run.dataset, len(order)), run.protocol == "subjects"))
    claims = {claim.dataset: claim for claim in PAPER}
    rows = []
    for run in runs:
        claim = claims.get(run.dataset)
        accuracy, compared = "not given", ""
        if claim and claim.protocol == run.protocol:
            accuracy, compared = claim.accuracy, claim.compared
        title = claim.title if claim else OTHER_TITLES.get(run.dataset, run.dataset)
        protocol = PROTOCOL_NAMES.get(run.protocol, run.protocol)
        rows.append((title, protocol, accuracy, *run.cells, compared))
    header = ("dataset", "protocol", "paper %", "ours %", "95 % interval", "runs", "parameters")
    return markdown_table((*header, "folder", "compared there"), rows)


class _Row(NamedTuple):
    """One result; its cells stand under "ours %" to "folder"."""

    dataset: str
    protocol: str
    cells: tuple[str, ...]


_NOT_RUN = ("not run", "", "", "", "")
_PAPER_ROWS = [("fer2013", "official")] + [
    (claim.dataset, protocol)
    for claim in PAPER
    if claim.protocol == "paper"
    for protocol in ("paper", "subjects")
]


def _read(path: Path) -> _Row:
    try:
        summary = json.loads(path.read_text())
        cells = (*_cells(summary), path.parent.name)
        return _Row(summary["dataset"], summary["protocol"], cells)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not the summary of a run ({error!r}); run main.py with this --workdir again"
        ) from error


def _cells(summary: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Accuracy with deviation, interval, number of runs and parameters of one workdir."""
    part = "test" if "test" in summary["over_runs"] else "validation"
    ours = summary["over_runs"][part]
    # One run has an interval over test images, several have one over runs.
    low, high = ours["interval95"] or summary["runs"][0][part]["interval95"]
    restarted = sum(run.get("restarts", 0) > 0 for run in summary["runs"])
    return (
        mean_and_deviation(ours["mean"], ours["std"], digits=2)
        + (" (validation)" if part == "validation" else ""),
        f"{100 * low:.2f} to {100 * high:.2f}",
        str(ours["count"]) + (f" ({restarted} restarted)" if restarted else ""),
        f"{summary['parameters']:,}" if "parameters" in summary else "",
    )
