"""Thresholds are the best there are, and the temperature is the one that was put in."""

import numpy as np
import pytest

from mcar_tf import metrics
from mcar_tf.evaluating.calibration import apply_temperature, choose_thresholds, fit_temperature


def f1_at(labels, probs, threshold):
    return metrics.precision_recall_f1(labels[:, None], probs[:, None], threshold)["CF1"]


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < [0.5, 0.2, 0.1, 0.3]).astype(np.float32)
    probs = (0.35 * labels + rng.random((300, 4)) * 0.65).astype(np.float32)
    return labels, probs, np.ones_like(labels)


def test_no_other_threshold_has_a_higher_f1(scored):
    labels, probs, _ = scored
    chosen = choose_thresholds(*scored).thresholds
    for c in range(4):
        best = f1_at(labels[:, c], probs[:, c], chosen[c])
        assert best == max(f1_at(labels[:, c], probs[:, c], t) for t in np.unique(probs[:, c]))


def test_no_other_threshold_of_the_wanted_precision_has_a_higher_recall(scored):
    labels, probs, _ = scored
    chosen = choose_thresholds(*scored, min_precision=0.9).thresholds
    for c in range(4):
        found = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], chosen[c])
        assert found["CP"] >= 0.9
        for t in np.unique(probs[:, c]):
            other = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], t)
            assert other["CP"] < 0.9 or other["CR"] <= found["CR"]


def test_a_threshold_lies_halfway_to_the_next_score_below():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.1]])
    chosen = choose_thresholds(labels, probs, np.ones_like(labels), min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_labels_that_do_not_count_do_not_choose():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.8]])
    weights = np.array([[1], [1], [1], [0]], np.float32)
    chosen = choose_thresholds(labels, probs, weights, min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_rare_classes_keep_the_default():
    labels = np.zeros((20, 2), np.float32)
    labels[:5, 0] = labels[:4, 1] = 1
    found = choose_thresholds(labels, 0.5 * labels + 0.2, np.ones_like(labels), min_positives=5)
    assert found.thresholds.tolist() == [pytest.approx(0.45), 0.6]
    assert found.reasons == {1: "only 4 of 5 positives"}


def test_a_precision_that_no_threshold_has_is_said():
    # The best precision of all is 2/3, at 0.5.
    labels = np.array([[0], [1], [1], [0]], np.float32)
    probs = np.array([[0.9], [0.7], [0.5], [0.1]])
    found = choose_thresholds(labels, probs, np.ones_like(labels), min_precision=0.9, min_positives=1)
    assert found.thresholds.tolist() == [pytest.approx(0.3)]
    assert found.reasons == {0: "no threshold has precision 0.9; the best has 0.67"}


@pytest.mark.parametrize("temperature", [0.5, 1, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature):
    # Labels are drawn by probabilities whose logits were then multiplied by the temperature.
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (40000, 3))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    probs = 1 / (1 + np.exp(-logits * temperature))
    weights = np.ones_like(labels)
    assert fit_temperature(labels, probs, weights) == pytest.approx(temperature, rel=0.03)
    after = apply_temperature(probs, temperature)
    assert metrics.expected_calibration_error(labels, after) < 0.005


def test_a_temperature_of_one_changes_nothing():
    probs = np.array([0.001, 0.3, 0.999])
    np.testing.assert_allclose(apply_temperature(probs, 1), probs, rtol=1e-12)


def test_probabilities_of_0_and_1_have_a_temperature():
    labels = np.array([[1.0, 0.0]])
    found = fit_temperature(labels, np.array([[1.0, 0.0]], np.float32), np.ones_like(labels))
    assert 0.04 < found < 0.06  # certain and right: the lower bound, exp(-3)
