"""The temperature against a known one, and the calibration curve against counts by hand."""

import numpy as np
import pytest
import scipy.special

from deep_emotion_jax.evaluation import calibration
from deep_emotion_jax.evaluation.metrics import evaluate


def sample(count, temperature, seed=0):
    """Logits [N, 5] and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 5))
    shares = scipy.special.softmax(logits / temperature, axis=1)
    return logits, (shares.cumsum(1) < rng.random((count, 1))).sum(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_recovers_the_temperature_that_labels_were_drawn_with(temperature):
    logits, labels = sample(20_000, temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_lowers_likelihood_loss_and_error_on_other_images():
    temperature = calibration.fit_temperature(*sample(2000, 2.5))
    logits, labels = sample(2000, 2.5, seed=1)
    before, after = evaluate(logits, labels), evaluate(logits / temperature, labels)
    assert after.log_loss < before.log_loss
    found = calibration.errors(temperature, {"test": (logits, labels)})["test"]
    assert found == {"before": before.calibration_error, "after": after.calibration_error}
    assert found["after"] < found["before"] / 3
    assert after.accuracy == before.accuracy


def test_the_temperature_is_one_without_mistakes():
    assert calibration.fit_temperature(np.eye(3), np.arange(3)) == 1


def test_curve_counts_every_image_once():
    # Confidence 0.731 twice (right once), and 0.5 on the edge of an interval.
    logits = np.array([[1.0, 0], [0, 1.0], [0, 0]])
    low, high = calibration.curve(logits, np.array([0, 0, 0]))
    assert low == (1, 0.5, 1.0)
    assert high == (2, pytest.approx(0.7311, abs=1e-4), 0.5)
