"""Which parts of a face an expression hangs on: the paper's occlusion maps, and scores for any map.

A square of the image is hidden, slid over the face, and each place is marked where the prediction
suffers (paper, "Region importance", after Zeiler & Fergus, ECCV 2014). The maps of all images of
one expression are then averaged:

    maps = occlusion_maps(logits_fn, weights, images, labels)
    regions = average_by_class(maps, labels, num_classes=7, keep=predictions == labels)

Any network will do: it comes in as a function `logits_fn(weights, images) -> logits`.
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
    """Maps how much hiding each part of an image harms its classification.

    Every window position gets a score in [0, 1]:
      "flip" (the paper's): 1 where the predicted label becomes wrong, else 0. In an image that is
        misclassified to begin with nothing can become wrong: its map is zero, and it should be left
        out of averages.
      "drop": max(0, p - q), the true class's probability p before and q after hiding the window.
    The paper leaves three things open, chosen here: the window's size and stride; a pixel's
    importance is the mean score of the windows that cover it; and where the stride does not lead
    exactly to the right or bottom edge, a last window is added flush with that edge.

    What hides matters more than its size. A black square (the paper's) is itself a strong mark,
    such as an open mouth, and shifts the mean of the whole image; the `blurred` image takes the
    detail away and adds nothing, which finds the truth of generated faces far better
    (docs/regions.md).

    Compiled once for each `logits_fn` (the object, so define it once), shape and setting; new
    weights cost no compilation.

    Args:
      logits_fn: a pure function of (weights, images [B, H, W, C]) that returns logits [B, K] and
        does the network's own normalisation; dropout off.
      weights: its pytree of arrays.
      images: [N, H, W, C] floats in [0, 1].
      labels: [N] integers in [0, K), the true classes.
      window: side of the hidden square in pixels, from 1 to min(H, W).
      stride: step between windows in pixels, from 1 to `window`, so that every pixel is covered.
      fill: what the hidden pixels become, in the units of `images`: a number (0 is black), or
        images that broadcast to [N, H, W, C], such as `blurred(images)`.
      mode: the score, "flip" or "drop".

    Returns:
      [N, H, W] float32 in [0, 1].

    Raises:
      ValueError: a shape, a type, a label or a setting is not as described, or a logit is not
        finite.
    """
    images, labels = np.asarray(images), np.asarray(labels)
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
    rows, columns = (_windows(size, window, stride) for size in images.shape[1:3])
    if len(images) == 0:
        return np.zeros(images.shape[:3], np.float32)
    images = images.astype(np.float32)
    filling = np.broadcast_to(np.asarray(fill, np.float32), images.shape)
    scores = _scores(logits_fn, weights, images, labels, rows, columns, filling, mode == "flip")
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        n = np.flatnonzero(np.isnan(scores).any(axis=(1, 2)))[0]
        raise ValueError(
            f"Image {n} has logits that are not finite, or its label {labels[n]} names no class."
        )
    # Spread in float64 on the host: a pixel whose windows all flip is then exactly 1, and ties
    # between pixels stay ties.
    total = rows.T @ scores @ columns
    return (total / np.outer(rows.sum(0), columns.sum(0))).astype(np.float32)


def blurred(images: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """Images without their detail, to hide windows with (after Fong & Vedaldi, ICCV 2017).

    Args:
      images: [N, H, W, C] floats.
      sigma: the Gaussian's standard deviation in pixels.

    Returns:
      The same shape.
    """
    import scipy.ndimage  # here: it takes long, and naming expressions needs none of it

    return scipy.ndimage.gaussian_filter(images, (0, sigma, sigma, 0))


def gradient_maps(
    logits_fn: LogitsFn,
    weights: Any,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = 8,
) -> np.ndarray:
    """Maps how much each pixel's detail speaks for the true class: integrated gradients.

    A pixel's share of what the class's log-probability gains on the straight way from the `blurred`
    image to the image (Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017;
    there the way starts at black). Detail that speaks against the class counts as zero.

    Args:
      logits_fn: as in `occlusion_maps`.
      weights: its pytree of arrays.
      images: [N, H, W, C] floats in [0, 1].
      labels: [N] integers in [0, K), the true classes.
      steps: points of the way at which the gradient is taken.

    Returns:
      [N, H, W] float32, not negative.
    """
    images = np.asarray(images, np.float32)
    starts, labels = blurred(images), np.asarray(labels)
    return np.asarray(_integrated_gradients(logits_fn, weights, images, starts, labels, steps))


def average_by_class(
    maps: np.ndarray, labels: np.ndarray, num_classes: int, keep: np.ndarray | None = None
) -> np.ndarray:
    """Averages the maps of each class.

    Args:
      maps: [N, H, W].
      labels: [N] integers in [0, num_classes).
      num_classes: K.
      keep: [N] booleans, the images to average; all of them where None. For "flip" maps the
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
    """The share of a map's importance that lies inside a region.

    Args:
      maps: [..., H, W], not negative.
      masks: [..., H, W] booleans that broadcast against `maps`, True inside the region.

    Returns:
      [...] in [0, 1]; NaN for a map that is zero everywhere.
    """
    inside = np.where(masks, maps, 0).sum(axis=(-2, -1), dtype=np.float64)
    total = np.asarray(maps).sum(axis=(-2, -1), dtype=np.float64)
    return np.divide(inside, total, out=np.full(inside.shape, np.nan), where=total > 0)


def pointing_hit(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The pointing game: does a map's maximum lie inside a region?

    After Zhang et al., "Top-Down Neural Attention by Excitation Backprop" (IJCV 2018), without
    their tolerance of 15 pixels around the region. Occlusion maps are plateaus, so among tied
    maxima the hits are averaged, as if one of them were pointed at by chance: a constant map scores
    the region's share of the image.

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
    """`gradient_maps` from images `starts`."""

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
    """Which pixels of a side of `size` each window covers: [windows, size] booleans."""
    starts = list(range(0, size - window + 1, stride))
    if starts[-1] + window < size:
        starts.append(size - window)
    pixels, first = np.arange(size), np.array(starts)[:, None]
    return (first <= pixels) & (pixels < first + window)


@functools.partial(jax.jit, static_argnames=("logits_fn", "flip"))
def _scores(
    logits_fn: LogitsFn,
    weights: Any,
    images: jax.Array,
    labels: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    filling: jax.Array,
    flip: bool,
) -> jax.Array:
    """Scores [N, R, C] of the windows rows[r] x columns[c] over images [N, H, W, channels].

    NaN where a logit is not finite or the label is no class.
    """
    R, C = len(rows), len(columns)
    # After an image's R * C windows comes one more row, which covers nothing: the image as it is.
    rows = jnp.concatenate([rows, jnp.zeros_like(rows[:1])])
    per_image = R * C + 1
    total = len(images) * per_image
    # Small batches keep a CPU's activations in its cache; accelerators need large ones to be busy.
    batch = min(total, 64 if jax.default_backend() == "cpu" else 2048)
    chunks = -(-total // batch)

    def support(indices: jax.Array) -> jax.Array:
        image, position = indices // per_image, indices % per_image
        hidden = rows[position // C, :, None] & columns[position % C, None, :]
        logits = logits_fn(weights, jnp.where(hidden[..., None], filling[image], images[image]))
        label = labels[image]
        probability = jnp.take_along_axis(
            jax.nn.softmax(logits), label[:, None], axis=-1, mode="fill", fill_value=jnp.nan
        )[:, 0]
        if flip:
            return jnp.where(jnp.isnan(probability), jnp.nan, logits.argmax(axis=-1) == label)
        return probability

    # The last chunk is filled up with repeats of the last window.
    indices = jnp.minimum(jnp.arange(chunks * batch), total - 1).reshape(chunks, batch)
    supports = jax.lax.map(support, indices).reshape(-1)[:total].reshape(-1, per_image)
    # What the true class had (a hit, or its probability) and has no more with the window hidden.
    return jnp.maximum(0.0, supports[:, -1:] - supports[:, :-1]).reshape(-1, R, C)
