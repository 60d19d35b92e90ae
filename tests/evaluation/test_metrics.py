import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_emotion_jax.evaluation import metrics


def _logits(predictions, classes, margin=4.0):
    return margin * np.eye(classes)[predictions]


def _two_class(confidences, correct):
    """Two-class logits with the given larger probabilities; all labels are 0."""
    confidences = np.asarray(confidences)
    odds = np.log(confidences / (1 - confidences))
    first = np.where(correct, odds, -odds)
    return np.stack([first, np.zeros_like(first)], axis=1), np.zeros(len(first), int)


def test_scores_against_values_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, 2])
    result = metrics.evaluate(_logits(predictions, 3), labels)
    assert result.count == 6
    assert result.accuracy == pytest.approx(4 / 6)
    np.testing.assert_array_equal(result.confusion_matrix, [[2, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert result.per_class_recall == pytest.approx((2 / 3, 1 / 2, 1))
    # F1 = 2 TP / (2 TP + FP + FN): 4/6, 2/4, 2/2.
    assert result.macro_f1 == pytest.approx((4 / 6 + 2 / 4 + 1) / 3)
    z = math.log(math.exp(4) + 2)
    assert result.log_loss == pytest.approx((4 * (z - 4) + 2 * z) / 6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 8))
def test_agrees_with_definitions_on_random_predictions(seed, count, classes):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(count, classes)), rng.integers(classes, size=count)
    result = metrics.evaluate(logits, labels)
    predictions = logits.argmax(1)
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predictions), 1)
    np.testing.assert_array_equal(result.confusion_matrix, matrix)
    assert result.accuracy == pytest.approx(np.trace(matrix) / count)
    hits, truth, named = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    seen = truth + named > 0
    assert result.macro_f1 == pytest.approx((2 * hits[seen] / (truth + named)[seen]).mean())
    for k, recall in enumerate(result.per_class_recall):
        assert recall is None if truth[k] == 0 else recall == pytest.approx(hits[k] / truth[k])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert result.log_loss == pytest.approx(-np.log(p[np.arange(count), labels]).mean())
    error = 0.0
    for m in range(15):
        inside = (p.max(1) > m / 15) & (p.max(1) <= (m + 1) / 15)
        if inside.any():
            gap = (predictions == labels)[inside].mean() - p.max(1)[inside].mean()
            error += inside.mean() * abs(gap)
    assert result.calibration_error == pytest.approx(error, abs=1e-12)


def test_result_does_not_depend_on_the_order_of_images():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(101, 7)), rng.integers(7, size=101)
    order = rng.permutation(101)
    before = metrics.evaluate(logits, labels).to_json()
    after = metrics.evaluate(logits[order], labels[order]).to_json()
    assert after.pop("log_loss") == pytest.approx(before.pop("log_loss"))
    assert after.pop("calibration_error") == pytest.approx(before.pop("calibration_error"))
    assert after == before


def test_an_absent_class_has_a_row_but_no_recall():
    result = metrics.evaluate(_logits([0, 1, 1, 3], 4), np.array([0, 1, 1, 0]))
    assert result.confusion_matrix.shape == (4, 4)
    assert result.per_class_recall == (0.5, 1.0, None, None)
    # Class 3 was predicted wrongly and has F1 = 0; class 2 does not occur and is skipped.
    assert result.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert json.loads(json.dumps(result.to_json()))["per_class_recall"] == [0.5, 1.0, None, None]


def test_to_json_keeps_every_field():
    result = metrics.evaluate(_logits([0, 1], 2), np.array([0, 0]))
    decoded = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert decoded["confusion_matrix"] == [[1, 1], [0, 0]]
    assert decoded["count"] == 2
    assert decoded["interval95"] == list(result.interval95)
    assert set(decoded) == set(metrics.Metrics.__dataclass_fields__)


def test_calibration_error_of_constructed_bins():
    # Bin (9/15, 10/15]: 4 images at 0.65, 1 correct, gap 0.40. Bin (14/15, 1]: 6 at 0.95, all
    # correct, gap 0.05. Weighted: 0.4 * 0.40 + 0.6 * 0.05.
    logits, labels = _two_class([0.65] * 4 + [0.95] * 6, [True, False, False, False] + [True] * 6)
    result = metrics.evaluate(logits, labels)
    assert result.calibration_error == pytest.approx(0.4 * 0.40 + 0.6 * 0.05)


def test_opposite_gaps_cancel_within_a_bin_but_not_between_bins():
    within, labels = _two_class([0.61, 0.65], [True, False])  # 1.26 expected, 1 correct.
    assert metrics.evaluate(within, labels).calibration_error == pytest.approx(0.13)
    between, labels = _two_class([0.61, 0.71], [True, False])
    assert metrics.evaluate(between, labels).calibration_error == pytest.approx((0.39 + 0.71) / 2)


def _interval(correct, count):
    predictions = (np.arange(count) >= correct).astype(int)
    return metrics.evaluate(_logits(predictions, 7), np.zeros(count, int)).interval95


def test_interval_matches_the_normal_approximation():
    count, accuracy = 3589, 0.7
    low, high = _interval(round(accuracy * count), count)
    reach = 1.96 * math.sqrt(accuracy * (1 - accuracy) / count)
    assert low == pytest.approx(accuracy - reach, abs=0.1 * reach)
    assert high == pytest.approx(accuracy + reach, abs=0.1 * reach)


def test_interval_agrees_with_resampling_the_images():
    rng = np.random.default_rng(0)
    correct = np.arange(200) < 130
    resampled = correct[rng.integers(200, size=(20000, 200))].mean(1)
    np.testing.assert_allclose(
        _interval(130, 200), np.percentile(resampled, [2.5, 97.5]), atol=0.011
    )


@pytest.mark.parametrize(("correct", "count"), [(9, 9), (0, 9), (8, 9), (1, 1), (130, 200)])
def test_interval_is_wilsons(correct, count):
    # The closed form of Wilson (1927), equation 4 of Brown, Cai & DasGupta (2001).
    z, share = 1.959963984540054, correct / count
    centre = (correct + z**2 / 2) / (count + z**2)
    reach = (
        z * math.sqrt(count) / (count + z**2) * math.sqrt(share * (1 - share) + z**2 / 4 / count)
    )
    assert _interval(correct, count) == pytest.approx((centre - reach, centre + reach))


def test_the_interval_has_a_width_if_all_images_are_right_or_wrong():
    low, high = _interval(9, 9)
    assert low == pytest.approx(0.7009, abs=1e-4)
    assert high == pytest.approx(1)
    assert _interval(0, 9) == pytest.approx((1 - high, 1 - low))


def test_extreme_logits_give_finite_scores():
    result = metrics.evaluate(np.array([[1e4, 0.0], [1e4, 0.0]], np.float32), np.array([0, 1]))
    assert result.log_loss == pytest.approx(5000)  # Not clipped: a confident mistake costs 1e4.
    assert result.calibration_error == pytest.approx(0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_refused(value):
    logits = np.zeros((3, 2))
    logits[1, 0] = value
    with pytest.raises(ValueError, match="row 1"):
        metrics.evaluate(logits, np.zeros(3, int))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 7)), np.zeros(0, int), "shape"),
        (np.zeros(7), np.zeros(7, int), "shape"),
        (np.zeros((3, 7)), np.zeros(2, int), "3 integer labels"),
        (np.zeros((3, 7)), np.zeros(3), "3 integer labels"),
        (np.zeros((3, 7)), np.array([0, 7, 1]), "Label 7"),
        (np.zeros((3, 7)), np.array([0, -1, 1]), "Label -1"),
    ],
)
def test_arrays_of_other_shapes_or_types_raise_an_error(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(logits, labels)


def test_mean_and_interval_over_five_seeds():
    summary = metrics.mean_and_interval([58.0, 58.5, 59.0, 59.5, 60.0])
    assert summary.count == 5
    assert summary.mean == pytest.approx(59)
    assert summary.std == pytest.approx(math.sqrt(2.5 / 4))
    reach = 2.776445 * math.sqrt(2.5 / 4) / math.sqrt(5)  # t(0.975, 4) from a printed table.
    assert summary.interval95 == pytest.approx((59 - reach, 59 + reach), rel=1e-6)


def test_a_single_run_has_no_interval_and_equal_runs_have_zero_width():
    assert metrics.mean_and_interval([0.7]) == metrics.Summary(1, 0.7, None, None)
    assert metrics.mean_and_interval([0.5, 0.5]).interval95 == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [[0.5]]])
def test_values_without_a_mean_raise_an_error(values):
    with pytest.raises(ValueError, match="finite numbers"):
        metrics.mean_and_interval(values)


def test_accuracy_of_answers_with_its_wilson_interval():
    images, accuracy, interval = metrics.accuracy_of(np.array([True, True, False, True]))
    assert (images, accuracy) == (4, 0.75)
    assert interval == pytest.approx((0.300642, 0.954413), abs=1e-6)  # Wilson's closed form
    assert metrics.accuracy_of(np.zeros(0, bool)) == (0, None, None)
