"""Scores of a classifier: NumPy arrays in, plain numbers out.

    metrics = evaluate(logits, labels)
    metrics.accuracy, metrics.interval95, metrics.per_class_recall
    mean_and_interval([run.accuracy for run in runs])

Scores are computed over all images at once, not averaged over batches, so all images have the same
weight.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
import sklearn.metrics

CALIBRATION_BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Metrics:
    """The scores of one classifier with K classes on N labelled images.

    Attributes:
      count: N.
      accuracy: share of correctly classified images, in [0, 1].
      interval95: 95 % Wilson interval of the accuracy, in [0, 1]; see `evaluate`.
      macro_f1: mean F1 over the classes that occur in labels or predictions, in [0, 1].
      per_class_recall: K values in [0, 1]; None for a class without images.
      confusion_matrix: [K, K] integer counts; rows are true classes, columns predicted ones.
      log_loss: mean negative log-likelihood of the true class, in nats.
      calibration_error: expected calibration error in [0, 1]; see `evaluate`.
    """

    count: int
    accuracy: float
    interval95: tuple[float, float]
    macro_f1: float
    per_class_recall: tuple[float | None, ...]
    confusion_matrix: np.ndarray
    log_loss: float
    calibration_error: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as numbers, lists and None, ready for `json.dumps`."""
        return dataclasses.asdict(self) | {"confusion_matrix": self.confusion_matrix.tolist()}


def evaluate(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Score logits against labels; ties predict the first class.

    `interval95` is Wilson's score interval (1927). It covers the choice of test images, not of the
    training seed (see `mean_and_interval`). Unlike a bootstrap interval, it has a width if all
    images are classified correctly: 70 % to 100 % for 9 of 9.

    `calibration_error` is the expected calibration error of Guo et al., "On Calibration of Modern
    Neural Networks" (ICML 2017), equation 3: the gap between accuracy and mean confidence in 15
    equally wide bins of the confidence (the largest probability), weighted by the images in each.

    Args:
      logits: [N, K] finite real numbers, N >= 1, K >= 2.
      labels: [N] integers in [0, K).

    Raises:
      ValueError: if a shape, a type or a label does not fit, or a logit is not finite.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    _check(logits, labels)
    count, classes = len(logits), np.arange(logits.shape[1])
    predictions = logits.argmax(axis=1)
    log_probabilities = scipy.special.log_softmax(logits, axis=1)

    correct = predictions == labels
    # zero_division=nan skips classes without a score instead of counting them as 0.
    recall = sklearn.metrics.recall_score(
        labels, predictions, labels=classes, average=None, zero_division=np.nan
    )
    return Metrics(
        count=count,
        accuracy=float(correct.mean()),
        interval95=wilson_interval(correct.sum(), count),
        macro_f1=float(
            sklearn.metrics.f1_score(
                labels, predictions, labels=classes, average="macro", zero_division=np.nan
            )
        ),
        per_class_recall=tuple(None if np.isnan(share) else float(share) for share in recall),
        confusion_matrix=sklearn.metrics.confusion_matrix(labels, predictions, labels=classes),
        # sklearn's log_loss clips probabilities, which would hide a confident mistake.
        log_loss=float(-log_probabilities[np.arange(count), labels].mean()),
        calibration_error=calibration_error(logits, labels),
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """The mean of a score over independent runs.

    Attributes:
      count: number of runs.
      mean: mean over the runs.
      std: sample standard deviation (divided by count - 1); None for a single run.
      interval95: 95 % Student t interval of the mean; None for a single run.
    """

    count: int
    mean: float
    std: float | None
    interval95: tuple[float, float] | None


def mean_and_interval(values: Sequence[float]) -> Summary:
    """Summarise one score over seeds or folds.

    The interval assumes independent runs. Folds share training images, so their interval is
    somewhat too narrow (Bengio & Grandvalet, JMLR 2004).

    Args:
      values: one finite number per run, at least one.

    Raises:
      ValueError: if there is no value, or one is not finite.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Expected one or more finite numbers, got {values!r}.")
    mean = float(array.mean())
    if array.size == 1:
        return Summary(1, mean, None, None)
    std = float(array.std(ddof=1))
    reach = float(scipy.stats.t.ppf(0.975, array.size - 1)) * std / array.size**0.5
    return Summary(array.size, mean, std, (mean - reach, mean + reach))


def wilson_interval(correct: float, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval, in [0, 1], of `correct` (rounded) of `count` images."""
    interval = scipy.stats.binomtest(round(correct), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


class Accuracy(NamedTuple):
    """An accuracy in [0, 1] with its 95 % Wilson interval; both are None without images."""

    images: int
    accuracy: float | None
    interval95: tuple[float, float] | None


def accuracy_of(correct: np.ndarray) -> Accuracy:
    """Return the accuracy, given bool [N] of which answers are correct."""
    if not len(correct):
        return Accuracy(0, None, None)
    interval = wilson_interval(correct.sum(), len(correct))
    return Accuracy(len(correct), float(correct.mean()), interval)


class ClassScores(NamedTuple):
    """The scores of one class; None for a division by zero."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def class_scores(matrix: np.ndarray) -> list[ClassScores]:
    """Return the scores of each class from a confusion matrix [K, K] (rows are true classes)."""

    def share(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    hits, support, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return [
        ClassScores(share(hit, p), share(hit, n), share(2 * hit, n + p), int(n))
        for hit, n, p in zip(hits, support, predicted, strict=True)
    ]


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error of logits [N, K]; see `evaluate`."""
    probabilities = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    confidence, correct = probabilities.max(axis=1), logits.argmax(axis=1) == labels
    # Bin m of 1 ... M holds the confidences in ((m - 1) / M, m / M], as in the paper.
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int)
    gaps = np.bincount(bins, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"Expected logits of shape [N, K], got {list(logits.shape)}.")
    if labels.shape != logits.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected {len(logits)} integer labels, got {labels.dtype} {list(labels.shape)}."
        )
    if not np.isfinite(logits).all():
        rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        raise ValueError(f"{len(rows)} rows of logits are not finite, the first is row {rows[0]}.")
    wrong = labels[(labels < 0) | (labels >= logits.shape[1])]
    if wrong.size:
        raise ValueError(f"Label {wrong[0]} is outside [0, {logits.shape[1]}).")
