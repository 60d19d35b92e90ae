"""The paper's region figure of a trained network, and its maps scored against the truth."""

import functools
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
from deep_emotion_jax.nn.logits import assemble, make_logits, split_model
from deep_emotion_jax.nn.model import DeepEmotion

FACES_PER_CLASS = 50
METHODS = (
    "label flips",
    "label flips, black squares",
    "probability drop",
    "gradient",
    "detail",
    "edges",
    "random",
)
"""The first three hide 8 x 8 squares, under blur or, as the paper does, in black. The last three
are baselines that have not seen the network; the gradients begin with the first of them, which is
the face less its blurred form."""


def correct_faces(model: DeepEmotion, faces: Split, num_classes: int) -> np.ndarray:
    """Places of the first `FACES_PER_CLASS` correctly named faces of each expression."""
    logits = jax.jit(make_logits(model))(*split_model(model), faces.images)
    right = np.asarray(logits).argmax(-1) == faces.labels
    found = [
        np.flatnonzero(right & (faces.labels == label))[:FACES_PER_CLASS]
        for label in range(num_classes)
    ]
    return np.concatenate(found)


def importance(model: DeepEmotion, faces: Split, method: str) -> np.ndarray:
    """Importance maps [N, 48, 48] of all faces by one of `METHODS`."""
    images = faces.images.astype(np.float32) / 255
    if method == "random":
        return np.random.default_rng(0).random(images.shape[:3], np.float32)
    if method == "edges":
        return np.stack([_edges(image[..., 0]) for image in images])
    if method == "detail":
        return np.abs(images - blurred(images))[..., 0]
    graph, weights = nnx.split(model)
    logits = _logits_fn(graph)
    if method == "gradient":
        return gradient_maps(logits, weights, images, faces.labels)
    return occlusion_maps(
        logits,
        weights,
        images,
        faces.labels,
        fill=0.0 if "black" in method else blurred(images),
        mode="flip" if "flips" in method else "drop",
    )


@functools.cache
def _logits_fn(graph: nnx.GraphDef[Any]) -> LogitsFn:
    """One function for all networks of one structure, so that `explain` compiles once for them."""

    def logits(weights: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights)(images)

    return logits


def write_regions(
    model: DeepEmotion, faces: Split, class_names: list[str], title: str, path: Path
) -> None:
    """Draws the paper's figure: the averaged occlusion map of each expression.

    Only correctly named faces have a say, since nothing can become wrong in others. Nothing is
    drawn where no face is named correctly.
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
        f"Where blurring an 8 x 8 square changes the answer ({title})",
    )


def write_telling_faces(
    model: DeepEmotion, faces: Split, class_names: list[str], title: str, path: Path
) -> None:
    """Draws of each expression the face in which one hidden square costs the most probability."""
    shown = faces.select(correct_faces(model, faces, len(class_names)))
    if not len(shown.labels):
        return
    maps = importance(model, shown, "probability drop")
    peaks = maps.max((1, 2))
    best = np.array(
        [
            label in shown.labels and np.where(shown.labels == label, peaks, -1).argmax()
            for label in range(len(class_names))
        ]
    )
    present = np.isin(np.arange(len(class_names)), shown.labels)[:, None, None]
    figures.regions_png(
        np.where(present, maps[best], np.nan),
        shown.images[best, ..., 0] / 255,
        class_names,
        path,
        f"The face that hangs most on one place ({title})",
    )


def truth_scores(model: DeepEmotion, faces: Split, num_classes: int) -> dict[str, dict[str, Any]]:
    """How well each of `METHODS` finds the regions that truly show the expression.

    Args:
      model: the network.
      faces: with their evidence; the correctly named ones that show anything (a neutral face does
        not) count.
      num_classes: K.

    Returns:
      For each method the mean `mass_inside` and `pointing_hit` over all these faces, so that
      methods compare: a map that is zero everywhere finds nothing and counts as 0. Then the
      share `mapped` of the other maps, and `after_shuffling`: the rank correlation with the maps
      of the same network with shuffled weights, which is near 1 for maps that say nothing about
      the network (None for label flips: shuffled weights name no face). Under "chance": the
      number of faces, and the share of the image that shows the expression.
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
    """Mean rank correlation of maps [N, H, W] in pairs, in [-1, 1]."""
    pairs = zip(maps.reshape(len(maps), -1), others.reshape(len(maps), -1), strict=True)
    varied = [(a, b) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in varied] or [0.0]))


def shuffled(model: DeepEmotion, seed: int) -> DeepEmotion:
    """The network with the numbers of each weight array in random order: a sanity check of maps.

    After Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018): maps that do not change
    with it say nothing about the network.
    """
    params, stats = split_model(model)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    mixed = [
        jax.random.permutation(key, jnp.ravel(leaf)).reshape(leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return assemble(model, jax.tree.unflatten(structure, mixed), stats)


def _edges(image: np.ndarray) -> np.ndarray:
    return np.hypot(scipy.ndimage.sobel(image, 0), scipy.ndimage.sobel(image, 1))
