"""Importance maps as in the paper's region figure, and their scores against known regions."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.stats
from flax import nnx

from deep_emotion_jax.attribution import (
    LogitsFn,
    average_by_class,
    blurred,
    gradient_maps,
    mass_inside,
    occlusion_maps,
    pointing_hit,
)
from deep_emotion_jax.data.split import Split
from deep_emotion_jax.evaluation import figures
from deep_emotion_jax.nn.logits import predict_logits
from deep_emotion_jax.runtime.blocks import blocks

FACES_PER_CLASS = 50
BLOCK = 32  # faces per call of a compiled program; constant, so that it is compiled once
METHODS = (
    "label flips",
    "label flips, black squares",
    "probability drop",
    "gradient",
    "detail",
    "edges",
    "random",
)
"""The first three hide 8 x 8 squares, blurred or, as in the paper, black. The last three are
baselines that do not use the network. "detail" is the difference between a face and its blurred
form, by which "gradient" multiplies the gradients."""


def correct_faces(model: nnx.Module, faces: Split, num_classes: int) -> np.ndarray:
    """Return indices of the first `FACES_PER_CLASS` correctly classified faces of each class."""
    right = predict_logits(model, faces.images).argmax(-1) == faces.labels
    found = [
        np.flatnonzero(right & (faces.labels == label))[:FACES_PER_CLASS]
        for label in range(num_classes)
    ]
    return np.concatenate(found)


def importance(model: nnx.Module, faces: Split, method: str) -> np.ndarray:
    """Return importance maps [N, 48, 48] of all N faces by one of `METHODS`."""
    images = faces.images.astype(np.float32) / 255
    if method == "random":
        return np.random.default_rng(0).random(images.shape[:3], np.float32)
    if method == "edges":
        return np.stack([_edges(image[..., 0]) for image in images])
    if method == "detail":
        return np.abs(images - blurred(images))[..., 0]
    graph, weights = nnx.split(model)
    logits = _logits_fn(graph)

    def maps(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if method == "gradient":
            return gradient_maps(logits, weights, images, labels)
        fill = 0.0 if "black" in method else blurred(images)
        mode: Any = "flip" if "flips" in method else "drop"
        return occlusion_maps(logits, weights, images, labels, fill=fill, mode=mode)

    return _in_blocks(maps, images, faces.labels, method)


def _in_blocks(
    maps: Callable[[np.ndarray, np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    title: str,
) -> np.ndarray:
    """Compute maps of `BLOCK` faces at a time, with a progress bar on a terminal."""
    found = [maps(images[i], labels[i]) for i in blocks(len(images), BLOCK, title)]
    return np.concatenate(found)[: len(images)]


@functools.cache
def _logits_fn(graph: nnx.GraphDef[Any]) -> LogitsFn:
    """Return the same function for all networks of one structure, so that it is compiled once."""

    def logits(weights: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights)(images)

    return logits


def write_regions(
    model: nnx.Module, faces: Split, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draw the paper's figure: the average occlusion map of each class.

    Uses only correctly classified faces, since only their prediction can become wrong. Draws
    nothing if there is none.
    """
    shown = faces.select(correct_faces(model, faces, len(class_names)))
    if not len(shown.labels):
        return
    maps = importance(model, shown, "label flips")
    figures.regions_png(
        average_by_class(maps, shown.labels, len(class_names)),
        average_by_class(shown.images[..., 0] / 255, shown.labels, len(class_names)),
        class_names,
        path,
        f"Where blurring an 8 x 8 square changes the prediction ({title})",
    )


def write_telling_faces(
    model: nnx.Module, faces: Split, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draw the face of each class whose probability drops most when one square is hidden."""
    shown = faces.select(correct_faces(model, faces, len(class_names)))
    if not len(shown.labels):
        return
    maps = importance(model, shown, "probability drop")
    peaks = maps.max((1, 2))
    best_maps = np.full((len(class_names), *maps.shape[1:]), np.nan, np.float32)
    best_faces = np.zeros_like(best_maps)
    for label in np.unique(shown.labels):
        best = np.where(shown.labels == label, peaks, -1).argmax()
        best_maps[label] = maps[best]
        best_faces[label] = shown.images[best, ..., 0] / 255
    heading = f"The face of each class that depends most on one square ({title})"
    figures.regions_png(best_maps, best_faces, class_names, path, heading)


def truth_scores(model: nnx.Module, faces: Split, num_classes: int) -> dict[str, dict[str, Any]]:
    """Score how well each of `METHODS` finds the regions that show the expression.

    Args:
      model: the network.
      faces: faces with `evidence`. Those that are correctly classified and show an expression are
        used (a neutral face shows none).
      num_classes: K.

    Returns:
      For each method:
        mass_inside, pointing_hit: means over these faces; a map of zeros counts as 0.
        mapped: share of the maps that are not all zeros.
        after_shuffling: rank correlation with the maps of the same network with shuffled weights.
          Near 1, the maps do not depend on the network. None for label flips, because a network
          with shuffled weights classifies no face correctly.
      Under "chance": the number of faces, and the share of the image that shows the expression.
    """
    assert faces.evidence is not None
    chosen = correct_faces(model, faces, num_classes)
    chosen = chosen[faces.evidence[chosen].any((1, 2))]
    shown, evidence = faces.select(chosen), faces.evidence[chosen]
    other = shuffled(model, seed=0)
    scores: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        maps = importance(model, shown, method)
        mapped = maps.any((1, 2))
        scores[method] = {
            "mapped": float(mapped.mean()),
            "mass_inside": float(np.where(mapped, mass_inside(maps, evidence), 0).mean()),
            "pointing_hit": float(np.where(mapped, pointing_hit(maps, evidence), 0).mean()),
            "after_shuffling": None
            if "flips" in method
            else _similarity(maps, importance(other, shown, method)),
        }
    scores["chance"] = {"faces": len(shown.labels), "mask": float(evidence.mean())}
    return scores


def _similarity(maps: np.ndarray, others: np.ndarray) -> float:
    """Return the mean rank correlation of pairs of maps [N, H, W], in [-1, 1]."""
    pairs = zip(maps.reshape(len(maps), -1), others.reshape(len(maps), -1), strict=True)
    varied = [(a, b) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in varied] or [0.0]))


def shuffled(model: nnx.Module, seed: int) -> nnx.Module:
    """Return the network with the elements of each weight array in random order.

    For the sanity check of Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018): maps
    that shuffling does not change do not depend on the network.
    """
    graph = nnx.graphdef(model)
    params, rest = nnx.state(model, nnx.Param, nnx.Not(nnx.Param))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    mixed = [
        jax.random.permutation(key, jnp.ravel(leaf)).reshape(jnp.shape(leaf))
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(structure, mixed), rest)


def _edges(image: np.ndarray) -> np.ndarray:
    return np.hypot(scipy.ndimage.sobel(image, 0), scipy.ndimage.sobel(image, 1))
