"""The rules for choosing weights and for detecting dead runs."""

import jax.numpy as jnp
import numpy as np
import pytest

from deep_emotion_jax.training.selection import (
    Score,
    describe_rule,
    is_better,
    is_dead,
    restart_seed,
    start_epoch,
)

LABELS = np.arange(70) % 7


@pytest.mark.parametrize("count", [499, 500])
def test_epochs_are_compared_with_at_least_500_validation_images(count):
    best = Score(0.6, 1.0)
    for new, ahead in [
        (Score(0.61, 2.0), True),  # accuracy first
        (Score(0.6, 0.9), True),  # then the loss
        (Score(0.6, 1.0), False),
        (Score(0.6, 1.1), False),
        (Score(0.59, 0.1), False),
    ]:
        assert bool(is_better(count, new, best)) == (ahead or count == 499)
    assert ("final averaged" in describe_rule(count)) == (count == 499)
    assert str(count) in describe_rule(count)


def test_every_run_has_its_own_count():
    new = Score(jnp.array([0.5, 0.5]), jnp.array([1.0, 1.0]))
    best = Score(jnp.array([0.9, 0.9]), jnp.array([0.1, 0.1]))
    np.testing.assert_array_equal(is_better(jnp.array([23, 3589]), new, best), [True, False])


@pytest.mark.parametrize(
    ("accuracy", "loss", "dead"),
    [
        (1 / 7, np.log(7), True),
        (0.16, 1.94, True),  # noise of few images
        (0.16, 1.93, False),  # a constant prediction cannot have this loss
        (0.17, 1.78, False),  # accuracy no better yet, but the loss is lower
        (0.26, 1.94, False),
        (0.55, 1.1, False),
    ],
)
def test_a_run_is_dead_if_no_better_than_the_best_constant_prediction(accuracy, loss, dead):
    assert is_dead(Score(accuracy, loss), LABELS, smoothing=0.0, classes=7) == dead


def test_class_frequencies_and_smoothing_set_the_threshold():
    common = np.repeat([0, 1, 2], [60, 20, 20])
    shares = np.array([0.6, 0.2, 0.2])
    level = -np.sum(shares * np.log(shares))
    assert is_dead(Score(0.6, level), common, smoothing=0.0, classes=3)
    assert not is_dead(Score(0.6, level - 0.1), common, smoothing=0.0, classes=3)
    # Smoothed targets are harder to predict: the same loss means that it has learned.
    smoothed = 0.7 * shares + 0.1
    level_smoothed = -np.sum(smoothed * np.log(smoothed))
    assert level_smoothed > level + 0.05
    assert is_dead(Score(0.6, level_smoothed), common, smoothing=0.3, classes=3)
    assert not is_dead(Score(0.6, level), common, smoothing=0.3, classes=3)


def test_dead_runs_are_detected_after_500_steps():
    assert [start_epoch(steps, 1000) for steps in (4, 22, 225, 1000)] == [125, 23, 3, 1]
    assert start_epoch(4, 125) is None  # nothing would be left to train


def test_each_restart_has_its_own_seed():
    seeds = {restart_seed(seed, restarts) for seed in range(20) for restarts in range(4)}
    assert len(seeds) == 80
    assert restart_seed(7, 0) == 7
    assert 0 <= restart_seed(2**31 - 1, 3) < 2**31
