"""Thresholds are the best there are, and the temperature is the one that was put in."""

import numpy as np
import pytest
from made_predictions import predictions_with

from mcar_tf import metrics
from mcar_tf.evaluating import predictions as predictions_module
from mcar_tf.evaluating.calibration import (
    apply_temperature,
    calibration_lines,
    choose_thresholds,
    fit_temperature,
    summarize_calibration,
)


def choose(labels, probs, weights=None, **options):
    """Each class's own best threshold, unless told otherwise."""
    return choose_thresholds(predictions_with(labels, probs, weights), **{"prior_positives": 0} | options)


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
    chosen = choose(*scored).thresholds
    for c in range(4):
        best = f1_at(labels[:, c], probs[:, c], chosen[c])
        assert best == max(f1_at(labels[:, c], probs[:, c], t) for t in np.unique(probs[:, c]))


def test_no_other_threshold_of_the_wanted_precision_has_a_higher_recall(scored):
    labels, probs, _ = scored
    chosen = choose(*scored, min_precision=0.9).thresholds
    for c in range(4):
        found = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], chosen[c])
        assert found["CP"] >= 0.9
        for t in np.unique(probs[:, c]):
            other = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], t)
            assert other["CP"] < 0.9 or other["CR"] <= found["CR"]


def test_a_threshold_lies_halfway_to_the_next_score_below():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.1]])
    chosen = choose(labels, probs, min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_labels_that_do_not_count_do_not_choose():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.8]])
    weights = np.array([[1], [1], [1], [0]], np.float32)
    chosen = choose(labels, probs, weights, min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_rare_classes_keep_the_default():
    labels = np.zeros((20, 2), np.float32)
    labels[:5, 0] = labels[:4, 1] = 1
    found = choose(labels, 0.5 * labels + 0.2, min_positives=5)
    assert found.thresholds.tolist() == [pytest.approx(0.45), 0.6]
    assert found.reasons == {1: "only 4 of 5 positives"}


def test_a_precision_that_no_threshold_has_is_said():
    # The best precision of all is 2/3, at 0.5.
    labels = np.array([[0], [1], [1], [0]], np.float32)
    probs = np.array([[0.9], [0.7], [0.5], [0.1]])
    found = choose(labels, probs, min_precision=0.9, min_positives=1)
    assert found.thresholds.tolist() == [pytest.approx(0.3)]
    assert found.reasons == {0: "no threshold has precision 0.9; the best has 0.67"}


def logit(prob):
    return np.log(prob / (1 - prob))


@pytest.fixture
def rare_and_frequent():
    """Class 0 has 5 positives, class 1 500, of 5,000 pictures; both are seen alike."""
    rng = np.random.default_rng(3)
    labels = np.zeros((5000, 2))
    labels[:5, 0] = labels[:500, 1] = 1
    probs = 1 / (1 + np.exp(-(rng.normal(0, 1.5, labels.shape) + 4 * labels - 3)))
    return predictions_with(labels, probs)


def test_a_threshold_of_five_positives_is_half_that_of_all_classes(rare_and_frequent):
    own = choose_thresholds(rare_and_frequent, prior_positives=0).thresholds
    found = choose_thresholds(rare_and_frequent)  # 5 of its own against 5
    assert logit(found.thresholds[0]) == pytest.approx((logit(own[0]) + logit(found.overall)) / 2)
    share = 500 / 505
    expected = share * logit(own[1]) + (1 - share) * logit(found.overall)
    assert logit(found.thresholds[1]) == pytest.approx(expected)


def test_an_interval_says_how_sure_a_threshold_is(rare_and_frequent):
    found = choose_thresholds(rare_and_frequent, prior_positives=0)
    assert found.positives.tolist() == [5, 500]
    (low_5, high_5), (low_500, high_500) = found.intervals
    assert low_500 <= found.thresholds[1] <= high_500
    assert high_5 - low_5 > 3 * (high_500 - low_500)
    drawn_together = choose_thresholds(rare_and_frequent).intervals[0]
    assert np.ptp(drawn_together) < high_5 - low_5


def test_a_class_with_too_few_positives_has_no_interval():
    found = choose([[1, 1], [1, 0], [0, 0]], [[0.9, 0.9], [0.8, 0.1], [0.1, 0.1]], min_positives=2)
    assert np.isnan(found.intervals[1]).all()
    assert not np.isnan(found.intervals[0]).any()


def test_the_threshold_of_all_classes_is_the_best_for_all_pairs_together(scored):
    labels, probs, weights = scored
    overall = choose(*scored).overall
    best = max(f1_at(labels.ravel(), probs.ravel(), t) for t in np.unique(probs))
    # Looked for in steps of 1/128 of a logit.
    assert f1_at(labels.ravel(), probs.ravel(), overall) > best - 0.005


def test_no_class_gives_up_precision_for_the_others_sake(scored):
    own = choose(*scored, min_precision=0.9).thresholds
    together = choose(*scored, min_precision=0.9, prior_positives=50).thresholds
    assert (together >= own).all()
    assert (together > own).any()


def test_many_classes_are_gone_through_in_parts(scored, monkeypatch):
    labels, probs, _ = (np.tile(part, 8) for part in scored)
    whole = choose(labels, probs)
    monkeypatch.setattr(predictions_module, "BLOCK", 300 * 8)
    parts = choose(labels, probs)
    np.testing.assert_array_equal(whole.thresholds, parts.thresholds)
    np.testing.assert_array_equal(whole.intervals, parts.intervals)
    predictions = predictions_with(labels, probs)
    summary = summarize_calibration(range(32), predictions, parts, 1.5, 0.6)
    after = metrics.precision_recall_f1(labels, predictions.probs, whole.thresholds)
    assert {name: summary["after"][name] for name in after} == pytest.approx(after)
    expected = metrics.expected_calibration_error(labels, apply_temperature(predictions.probs, 1.5))
    assert summary["after"]["ECE"] == pytest.approx(expected)


def test_of_many_classes_the_most_frequent_are_printed():
    rng = np.random.default_rng(0)
    labels = rng.random((20, 300)) < np.linspace(0.5, 0.1, 300)
    predictions = predictions_with(labels, rng.random((20, 300)))
    found = choose_thresholds(predictions, min_positives=3)
    names = [f"class-{c}\x1b[31m" for c in range(300)]
    result = summarize_calibration(names, predictions, found, 1.0, 0.6) | {"split": "validation"}
    lines = calibration_lines(result, 0.6)
    assert sum("class-" in line for line in lines) == 200
    assert "... and 100 classes that fewer images show: see thresholds.json" in lines
    assert "class-0\\x1b[31m" in lines[1]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("temperature", [0.5, 1, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature):
    # Labels are drawn by probabilities whose logits were then multiplied by the temperature.
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (40000, 3))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    probs = 1 / (1 + np.exp(-logits * temperature))
    assert fit_temperature(predictions_with(labels, probs)) == pytest.approx(temperature, rel=0.03)
    after = apply_temperature(probs, temperature)
    assert metrics.expected_calibration_error(labels, after) < 0.005


def test_a_temperature_of_one_changes_nothing():
    probs = np.array([0.001, 0.3, 0.999])
    np.testing.assert_allclose(apply_temperature(probs, 1), probs, rtol=1e-12)


def test_probabilities_of_0_and_1_have_a_temperature():
    labels = np.array([[1.0, 0.0]])
    found = fit_temperature(predictions_with(labels, np.array([[1.0, 0.0]])))
    assert 0.04 < found < 0.06  # certain and right: the lower bound, exp(-3)
