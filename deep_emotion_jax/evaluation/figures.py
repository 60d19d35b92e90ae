"""Figures of results as PNG files.

They use Matplotlib's object-oriented interface, which needs no display and does not change the
caller's `pyplot`. Colour scales are perceptually uniform and safe for colour-blind readers.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PathLike = str | os.PathLike[str]

_DPI = 150
# Okabe & Ito's colours, distinguishable with all common forms of colour blindness.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"


def confusion_matrix_png(
    matrix: np.ndarray, class_names: Sequence[str], path: PathLike, title: str
) -> None:
    """Draw a confusion matrix, coloured and labelled by the shares of each row.

    Args:
      matrix: [K, K] counts; rows are true classes, columns predicted ones.
      class_names: K names.
      path: the PNG to write.
      title: shown above the figure.

    Raises:
      ValueError: if the matrix is not [K, K].
    """
    matrix = _counts(matrix, class_names)
    K = len(matrix)
    images = matrix.sum(axis=1, keepdims=True)
    # Rows of absent classes stay blank.
    shares = np.divide(matrix, images, out=np.full(matrix.shape, np.nan), where=images > 0)

    figure = _figure(1.9 + 0.85 * K, 1.3 + 0.85 * K)
    axes = figure.subplots()
    axes.set_title(title, pad=12, wrap=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(K, K):
        if images[row, 0] == 0:
            continue
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{100 * share:.1f} %\n{matrix[row, column]}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if share > 0.7 else "black",
        )
    axes.set_xticks(range(K), class_names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        range(K),
        [f"{name} ({n})" for name, n in zip(class_names, images[:, 0], strict=True)],
    )
    axes.set_xlabel("predicted (share of the row, count)")
    axes.set_ylabel("true (images)")
    axes.tick_params(length=0)
    axes.spines[:].set_color("lightgrey")
    figure.savefig(path)


def confusion_matrix_csv(matrix: np.ndarray, class_names: Sequence[str], path: PathLike) -> None:
    """Write the counts of a confusion matrix as CSV; arguments as in `confusion_matrix_png`."""
    matrix = _counts(matrix, class_names)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true \\ predicted", *class_names])
        writer.writerows(
            [name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True)
        )


def write_confusion(
    matrix: np.ndarray, class_names: Sequence[str], stem: PathLike, title: str
) -> None:
    """Write a confusion matrix as `stem`.png, with the accuracy in its title, and `stem`.csv."""
    title = f"{title}: {np.trace(matrix) / matrix.sum():.2%}"
    confusion_matrix_png(matrix, class_names, f"{os.fspath(stem)}.png", title)
    confusion_matrix_csv(matrix, class_names, f"{os.fspath(stem)}.csv")


def curves_png(
    records: Sequence[Mapping[str, Any]], path: PathLike, best_epoch: int | None = None
) -> None:
    """Draw loss, accuracy and learning rate over the epochs of a run, and mark the best epoch.

    Args:
      records: one per epoch, with `epoch` and any of `train_loss`, `validation_loss`,
        `train_accuracy`, `validation_accuracy` (in [0, 1]) and `learning_rate`; missing values and
        None are skipped.
      path: the PNG to write.
      best_epoch: the epoch to mark; None for the last one with the highest validation accuracy.

    Raises:
      ValueError: if there is no record.
    """
    if not records:
        raise ValueError("There is no epoch to draw.")
    epochs = np.array([int(record["epoch"]) for record in records])
    rates = _column(records, "learning_rate")
    panels = 2 if np.isnan(rates).all() else 3
    figure = _figure(8, 2.6 * panels)
    axes = figure.subplots(panels, sharex=True, squeeze=True, height_ratios=[3, 3, 1.4][:panels])
    for panel, quantity, scale in ((axes[0], "loss", 1), (axes[1], "accuracy", 100)):
        for part, colour in (("train", _BLUE), ("validation", _ORANGE)):
            values = scale * _column(records, f"{part}_{quantity}")
            if not np.isnan(values).all():
                _line(panel, epochs, values, colour, part)
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel("accuracy (%)")
    if panels == 3:
        _line(axes[2], epochs, rates, _GREY, "learning rate")
        axes[2].set_ylabel("learning rate")
        axes[2].set_ylim(bottom=0)
        axes[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    _mark_best(axes, epochs, _column(records, "validation_accuracy"), best_epoch)
    for panel in axes:
        panel.grid(color="lightgrey", linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[:2]:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.align_ylabels()
    figure.savefig(path)


def _mark_best(
    axes: Sequence[Axes], epochs: np.ndarray, accuracy: np.ndarray, best_epoch: int | None
) -> None:
    """Mark the best epoch by a line in all panels and a point in the accuracy panel."""
    if np.isnan(accuracy).all():
        return
    best = int(np.flatnonzero(accuracy == np.nanmax(accuracy))[-1])
    if best_epoch is not None:
        best = int(np.flatnonzero(epochs == best_epoch)[0])
    for panel in axes:
        panel.axvline(epochs[best], color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes[1].plot(
        epochs[best],
        100 * accuracy[best],
        marker="o",
        markersize=7,
        color=_ORANGE,
        markeredgecolor="white",
        linestyle="none",
        zorder=4,
        label=f"best: {100 * accuracy[best]:.2f} % at epoch {epochs[best]}",
    )


def regions_png(
    maps: np.ndarray,
    faces: np.ndarray,
    class_names: Sequence[str],
    path: PathLike,
    title: str,
) -> None:
    """Draw the importance map of each class over the mean face of that class.

    All maps share one colour scale, from 0 to the largest importance.

    Args:
      maps: [K, H, W], not negative; a class without images has NaN and is drawn empty.
      faces: [K, H, W] mean faces, grey in [0, 1].
      class_names: K names.
      path: the PNG to write.
      title: shown above the figure.

    Raises:
      ValueError: if the shapes do not fit or all maps are NaN.
    """
    maps, faces = np.asarray(maps), np.asarray(faces)
    K = len(class_names)
    if maps.ndim != 3 or len(maps) != K or faces.shape != maps.shape:
        raise ValueError(
            f"Expected maps and faces of shape [{K}, H, W], got {maps.shape} and {faces.shape}."
        )
    if np.isnan(maps).all():
        raise ValueError("There is no map to draw: every class is empty.")
    colours = ScalarMappable(Normalize(0, np.nanmax(maps)), "magma")
    figure = _figure(1.5 * K + 0.9, 3.6)
    figure.suptitle(title, wrap=True)
    axes = figure.subplots(2, K, squeeze=False)
    for k, name in enumerate(class_names):
        face, overlay = axes[:, k]
        face.set_title(name, fontsize=10)
        for panel in (face, overlay):
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
        empty = np.isnan(maps[k]).any()
        for panel in (face, overlay):
            panel.imshow(np.ones_like(faces[k]) if empty else faces[k], "gray", vmin=0, vmax=1)
        if empty:
            overlay.text(0.5, 0.5, "no image", ha="center", transform=overlay.transAxes)
        else:
            overlay.imshow(maps[k], norm=colours.norm, cmap=colours.cmap, alpha=0.6)
    figure.colorbar(colours, ax=axes, label="importance", fraction=0.02, pad=0.01)
    figure.savefig(path)


def robustness_png(
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    amounts: Sequence[float],
    path: PathLike,
    title: str,
) -> None:
    """Draw accuracy against the amount of change: one panel per change, one line per network.

    Lines are means over a network's runs; error bars are standard deviations.

    Args:
      curves: network -> change -> accuracies [runs, amounts] in [0, 1].
      amounts: shares in [0, 1].
      path: the PNG to write.
      title: shown above the figure.
    """
    changes = list(next(iter(curves.values())))
    figure = _figure(3.4 * len(changes), 3.8)
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(1, len(changes), sharey=True, squeeze=False)[0]
    for panel, change in zip(panels, changes, strict=True):
        for name, accuracies in curves.items():
            shares = 100 * np.asarray(accuracies[change])
            deviation = shares.std(0, ddof=1) if len(shares) > 1 else None
            panel.errorbar(
                100 * np.asarray(amounts),
                shares.mean(0),
                deviation,
                marker="o",
                markersize=4,
                capsize=2,
                label=name,
            )
        panel.set_xlabel(f"{change} (%)")
        panel.grid(color="lightgrey", linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy (%)")
    # Below the panels, because long folder names would cover the curves.
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path)


def _counts(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.shape != (len(class_names), len(class_names)):
        raise ValueError(f"{len(class_names)} names do not fit a matrix {list(matrix.shape)}.")
    return matrix


def _column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return one field of every record as floats, NaN where it is missing or None."""
    return np.array([record.get(key) for record in records], np.float64)


def _line(axes: Axes, epochs: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    known = ~np.isnan(values)  # draws an unbroken line if validation runs every few epochs only
    marker = "o" if known.sum() == 1 else None
    axes.plot(epochs[known], values[known], color=colour, label=label, marker=marker)


def _figure(width: float, height: float) -> Figure:
    """Create an empty figure of `width` x `height` inches."""
    return Figure((width, height), dpi=_DPI, layout="constrained", facecolor="white")
