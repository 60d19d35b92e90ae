"""Accuracy on shifted, rotated and scaled faces.

A spatial transformer can undo an affine change of the face (Jaderberg et al. 2015). If its
attention does so, a network loses less accuracy than one without attention.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deep_emotion_jax.evaluation import figures, metrics, tables
from deep_emotion_jax.files import write_json
from deep_emotion_jax.nn.logits import batched_logits
from deep_emotion_jax.nn.spatial_transformer import affine_grid, grid_sample

AMOUNTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
CHANGES = ("shift", "rotate", "scale")


def change_theta(key: jax.Array, count: int, change: str, amount: float) -> jax.Array:
    """Draw affine maps [count, 2, 3] that change each face by `amount` in a random direction.

    Args:
      key: random key of the directions.
      count: number of faces.
      change: "shift" by `amount` of the side, at any angle; "rotate" by `amount` of half a turn
        (0.25 is 45 degrees), in either direction; "scale" to 1 + amount or 1 - amount of the size.
      amount: in [0, 1).

    Raises:
      ValueError: for an unknown change.
    """
    if change not in CHANGES:
        raise ValueError(f"change must be one of {CHANGES}, got {change!r}")
    angle_key, sign_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, (count,), maxval=2 * jnp.pi)
    sign = jax.random.rademacher(sign_key, (count,), jnp.float32)
    zero, one = jnp.zeros(count), jnp.ones(count)
    if change == "shift":
        # Normalised coordinates span [-1, 1].
        x, y = 2 * amount * jnp.cos(angle), 2 * amount * jnp.sin(angle)
        rows = [one, zero, x, zero, one, y]
    elif change == "rotate":
        turn = sign * amount * jnp.pi
        rows = [jnp.cos(turn), -jnp.sin(turn), zero, jnp.sin(turn), jnp.cos(turn), zero]
    else:
        # The sampler reads a smaller region to make the face larger.
        factor = 1 / (1 + sign * amount)
        rows = [factor, zero, zero, zero, factor, zero]
    return jnp.stack(rows, -1).reshape(count, 2, 3)


@partial(jax.jit, static_argnums=0)
def _predict(
    graph: nnx.GraphDef, state: nnx.State, images: jax.Array, theta: jax.Array
) -> jax.Array:
    grid = affine_grid(theta, (images.shape[1], images.shape[2]))
    faces = grid_sample(images.astype(jnp.float32) / 255, grid, padding="border")
    return batched_logits(nnx.merge(graph, state), faces).argmax(-1)


def accuracy_under_change(
    model: nnx.Module, images: np.ndarray, labels: np.ndarray, seed: int = 0
) -> dict[str, list[float]]:
    """Return the accuracy for each of `CHANGES` at each of `AMOUNTS`.

    Outside the image, its edge is repeated.

    Args:
      model: maps images [N, H, W, C] in [0, 1] to logits [N, K].
      images: uint8 [N, H, W, C].
      labels: int [N].
      seed: seed of the directions; use the same for all models to compare.
    """
    network = nnx.split(model)

    def accuracy(change: str, amount: float) -> float:
        theta = change_theta(jax.random.key(seed), len(images), change, amount)
        return float(np.mean(np.asarray(_predict(*network, images, theta)) == labels))

    return {change: [accuracy(change, amount) for amount in AMOUNTS] for change in CHANGES}


def describe(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Return a table of accuracies in percent, as mean and standard deviation over runs.

    Args:
      curves: network -> change -> accuracies [runs, amounts].
    """
    rows = []
    for name, changes in curves.items():
        for change, runs in changes.items():
            over_runs = [metrics.mean_and_interval(shares) for shares in zip(*runs, strict=True)]
            cells = [tables.mean_and_deviation(x.mean, x.std, digits=1) for x in over_runs]
            rows.append((name, change, *cells))
    return tables.markdown_table(("network", "change", *(f"{a:.0%}" for a in AMOUNTS)), rows)


def write_curves(
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], folder: Path, title: str
) -> tuple[Path, Path]:
    """Write curves, as `describe` takes them, as a figure and as JSON; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, numbers = folder / "robustness.png", folder / "robustness.json"
    figures.robustness_png(curves, AMOUNTS, figure, title)
    write_json(numbers, {"amounts": AMOUNTS, "accuracy": curves})
    return figure, numbers
