"""Markdown tables of scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from deep_emotion_jax.evaluation.metrics import Metrics


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table with padded columns.

    Args:
      header: the column titles.
      rows: one cell per column, formatted by `str`; the first column is aligned left, the others
        right.

    Raises:
      ValueError: if a row does not have the length of the header.
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
    """Format shares in [0, 1] as percent, such as "63.7 ± 0.4", or "63.7" if `std` is None."""
    deviation = "" if std is None else f" ± {100 * std:.{digits}f}"
    return f"{100 * mean:.{digits}f}{deviation}"


SCORES = ("accuracy %", "95 % interval", "macro-F1", "calibration error")


def score_cells(score: Metrics) -> tuple[str, ...]:
    """Format the columns `SCORES`, followed by the recall of each class in percent."""
    low, high = score.interval95
    return (
        f"{100 * score.accuracy:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{score.macro_f1:.3f}",
        f"{score.calibration_error:.3f}",
        *("-" if share is None else f"{100 * share:.1f}" for share in score.per_class_recall),
    )


def truth_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the result of `regions.truth_scores`."""
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
    title = f"{chance['faces']} faces; the true regions cover {chance['mask']:.1%} of the image"
    return f"{title}\n\n{markdown_table(header, rows)}"
