"""Which pixels a prediction depends on: occlusion maps, gradient maps, and scores for any map.

Occlusion slides a window over the image, hides the pixels below it, and scores how much the
prediction degrades (paper, "Region importance", after Zeiler & Fergus, ECCV 2014). The maps of all
images of one class are then averaged:

    maps = occlusion_maps(logits_fn, weights, images, labels)
    regions = average_by_class(maps, labels, num_classes=7, keep=predictions == labels)

The network can be any function `logits_fn(weights, images) -> logits`.

The paper leaves some choices open. Here the importance of a pixel is the mean score of the windows
that cover it. If the stride does not end exactly at the right or bottom edge, a last window is
added flush with that edge. The fill matters more than the size of the window: a black square (the
paper's) is itself a strong feature, such as an open mouth, and shifts the mean of the whole image.
The `blurred` image removes detail and adds nothing. It finds the known regions of generated faces
far better (docs/regions.md).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

LogitsFn = Callable[[Any, jax.Array], jax.Array]


def occlusion_maps(
    logits_fn: LogitsFn,
    weights: Any,
    images: np.ndarray,
    labels: np.ndarray,
    window: int = 8,
    stride: int = 4,
    fill: float | np.ndarray = 0.0,
    mode: Literal["flip", "drop"] = "flip",
) -> np.ndarray:
    """Map how much hiding each part of an image degrades its classification.

    Every window position gets a score in [0, 1]:
      "flip" (the paper's): 1 where the predicted label becomes wrong, else 0. The map of an image
        that is misclassified without occlusion is zero; leave it out of averages.
      "drop": max(0, p - q), the true class's probability p before and q after hiding the window.
    Each `logits_fn` (the same function object) is compiled once for all modes, fills and weights.

    Args:
      logits_fn: a pure function of (weights, images [B, H, W, C]) that returns logits [B, K],
        without dropout, and including the network's input normalization.
      weights: its pytree of arrays.
      images: [N, H, W, C] floats in [0, 1].
      labels: [N] integers in [0, K), the true classes.
      window: side of the hidden square in pixels, from 1 to min(H, W).
      stride: step between windows in pixels, from 1 to `window`, so that every pixel is covered.
      fill: values of the hidden pixels, in the units of `images`: a number (0 is black), or images
        that broadcast to [N, H, W, C], such as `blurred(images)`.
      mode: the score, "flip" or "drop".

    Returns:
      [N, H, W] float32 in [0, 1].

    Raises:
      ValueError: a shape, a type, a label or a setting is not as described, or a logit is not
        finite.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    _check(images, labels, window, stride, mode)
    rows, columns = (_windows(size, window, stride) for size in images.shape[1:3])
    if len(images) == 0:
        return np.zeros(images.shape[:3], np.float32)
    images = images.astype(np.float32)
    filling = np.broadcast_to(np.asarray(fill, np.float32), images.shape)
    supports = _supports(logits_fn, weights, images, labels, rows, columns, filling)
    scores = _scores(np.asarray(supports[mode], np.float64), labels, (len(rows), len(columns)))
    # Averaged in float64 on the host: a pixel whose windows all flip is then exactly 1, and ties
    # between pixels stay ties.
    total = rows.T @ scores @ columns
    return (total / np.outer(rows.sum(0), columns.sum(0))).astype(np.float32)


def blurred(images: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Blur images, for use as the fill of windows (after Fong & Vedaldi, ICCV 2017).

    Args:
      images: [N, H, W, C] floats.
      sigma: the Gaussian's standard deviation in pixels.

    Returns:
      The same shape.
    """
    import scipy.ndimage  # takes long to import, and prediction does not need it

    return scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0))


def gradient_maps(
    logits_fn: LogitsFn,
    weights: Any,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = 8,
) -> np.ndarray:
    """Map how much each pixel's detail supports the true class: integrated gradients.

    The value is a pixel's share of the gain in the class's log-probability on the straight path
    from the `blurred` image to the image (Sundararajan et al., "Axiomatic Attribution for Deep
    Networks", ICML 2017; there the path starts at black). Negative shares are set to zero.

    Args:
      logits_fn: as in `occlusion_maps`.
      weights: its pytree of arrays.
      images: [N, H, W, C] floats in [0, 1].
      labels: [N] integers in [0, K), the true classes.
      steps: number of points on the path at which the gradient is taken.

    Returns:
      [N, H, W] float32, non-negative.
    """
    images = np.asarray(images, np.float32)
    starts, labels = blurred(images), np.asarray(labels)
    return np.asarray(_integrated_gradients(logits_fn, weights, images, starts, labels, steps))


def average_by_class(
    maps: np.ndarray, labels: np.ndarray, num_classes: int, keep: np.ndarray | None = None
) -> np.ndarray:
    """Average the maps of each class.

    Args:
      maps: [N, H, W].
      labels: [N] integers in [0, num_classes).
      num_classes: K.
      keep: [N] booleans, the images to average; None averages all. For "flip" maps, keep the
        correctly classified ones.

    Returns:
      [K, H, W]; NaN for a class without an image.
    """
    kept = np.ones(len(maps), bool) if keep is None else np.asarray(keep, bool)
    means = np.full((num_classes, *maps.shape[1:]), np.nan, np.float32)
    for label in range(num_classes):
        chosen = kept & (labels == label)
        if chosen.any():
            means[label] = maps[chosen].mean(axis=0, dtype=np.float64)
    return means


def mass_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the share of a map's importance that lies inside a region.

    Args:
      maps: [..., H, W], non-negative.
      masks: [..., H, W] booleans that broadcast against `maps`, True inside the region.

    Returns:
      [...] in [0, 1]; NaN for a map that is zero everywhere.
    """
    inside = np.where(masks, maps, 0).sum(axis=(-2, -1), dtype=np.float64)
    total = np.asarray(maps).sum(axis=(-2, -1), dtype=np.float64)
    return np.divide(inside, total, out=np.full(inside.shape, np.nan), where=total > 0)


def pointing_hit(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return whether a map's maximum lies inside a region (the pointing game).

    After Zhang et al., "Top-Down Neural Attention by Excitation Backprop" (IJCV 2018), without
    their tolerance of 15 pixels around the region. Occlusion maps have plateaus, so hits are
    averaged over tied maxima: a constant map scores the region's share of the image.

    Args:
      maps: [..., H, W].
      masks: [..., H, W] booleans that broadcast against `maps`, True inside the region.

    Returns:
      [...] in [0, 1]; 0 or 1 where the maximum is unique.
    """
    maxima = maps == np.max(maps, axis=(-2, -1), keepdims=True)
    return (maxima & masks).sum(axis=(-2, -1)) / maxima.sum(axis=(-2, -1))


@functools.partial(jax.jit, static_argnames=("logits_fn", "steps"))
def _integrated_gradients(
    logits_fn: LogitsFn,
    weights: Any,
    images: jax.Array,
    starts: jax.Array,
    labels: jax.Array,
    steps: int,
) -> jax.Array:
    """Compute `gradient_maps` with paths from the images `starts`."""

    def log_probability(points: jax.Array, label: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits_fn(weights, points))[:, label].sum()

    def one(example: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        image, start, label = example
        shares = (jnp.arange(steps) + 0.5) / steps
        points = start + shares[:, None, None, None] * (image - start)
        gain = jax.grad(log_probability)(points, label).mean(0) * (image - start)
        return jnp.maximum(gain.sum(-1), 0)

    return jax.lax.map(one, (images, starts, labels))


def _windows(size: int, window: int, stride: int) -> np.ndarray:
    """Return which pixels of a side of `size` each window covers: [windows, size] booleans."""
    starts = list(range(0, size - window + 1, stride))
    if starts[-1] + window < size:
        starts.append(size - window)
    pixels, first = np.arange(size), np.array(starts)[:, None]
    return (first <= pixels) & (pixels < first + window)


def _check(images: np.ndarray, labels: np.ndarray, window: int, stride: int, mode: str) -> None:
    """Raise ValueError where an argument of `occlusion_maps` is not as described."""
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"Expected float images [N, H, W, C], got {images.dtype} {list(images.shape)}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected {len(images)} integer labels, got {labels.dtype} {list(labels.shape)}."
        )
    if (labels < 0).any():
        raise ValueError(f"Label {labels.min()} is negative.")
    if not 1 <= window <= min(images.shape[1:3]):
        raise ValueError(f"A window of {window} pixels does not fit images of {images.shape[1:3]}.")
    if not 1 <= stride <= window:
        raise ValueError(f"A stride of {stride} leaves gaps between windows of {window} pixels.")
    if mode not in ("flip", "drop"):
        raise ValueError(f"Expected mode 'flip' or 'drop', got {mode!r}.")


def _scores(supports: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the score of each window: [N, *shape].

    Args:
      supports: from `_supports`, one mode.
      labels: [N].
      shape: number of windows down and across.
    """
    if np.isnan(supports).any():
        n = np.flatnonzero(np.isnan(supports).any(axis=1))[0]
        raise ValueError(
            f"Image {n} has logits that are not finite, or its label {labels[n]} is not a class."
        )
    return np.maximum(0.0, supports[:, -1:] - supports[:, :-1]).reshape(-1, *shape)


@functools.partial(jax.jit, static_argnames="logits_fn")
def _supports(
    logits_fn: LogitsFn,
    weights: Any,
    images: jax.Array,
    labels: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    filling: jax.Array,
) -> dict[str, jax.Array]:
    """Return the support of the true class under each window, [N, R * C + 1] for each mode.

    The windows are rows[r] x columns[c]; the last entry is the whole image. "flip": whether the
    label is predicted; "drop": its probability. NaN if a logit is not finite or the label is not a
    class.
    """
    R, C = len(rows), len(columns)
    rows = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])  # the last one covers nothing
    per_image = R * C + 1
    total = len(images) * per_image
    # Small batches keep the activations in a CPU's cache; accelerators need large ones.
    batch = min(total, 64 if jax.default_backend() == "cpu" else 2048)
    chunks = -(-total // batch)

    def support(indices: jax.Array) -> dict[str, jax.Array]:
        image, position = indices // per_image, indices % per_image
        hidden = rows[position // C, :, None] & columns[position % C, None, :]
        logits = logits_fn(weights, jnp.where(hidden[..., None], filling[image], images[image]))
        label = labels[image]
        probability = jnp.take_along_axis(
            jax.nn.softmax(logits), label[:, None], axis=-1, mode="fill", fill_value=jnp.nan
        )[:, 0]
        hit = jnp.where(jnp.isnan(probability), jnp.nan, logits.argmax(axis=-1) == label)
        return {"flip": hit, "drop": probability}

    # The last chunk is padded with repeats of the last window.
    indices = jnp.minimum(jnp.arange(chunks * batch), total - 1).reshape(chunks, batch)
    return jax.tree.map(
        lambda found: found.reshape(-1)[:total].reshape(-1, per_image),
        jax.lax.map(support, indices),
    )
