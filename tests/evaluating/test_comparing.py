"""The interval of a difference is that of the same pictures drawn for both; what can't be compared is told."""

from pathlib import Path

import numpy as np
import pytest
from made_predictions import predictions_with

from mcar_tf.evaluating.comparing import check_comparable, resample_map
from mcar_tf.metrics import mean_average_precision


def test_a_model_differs_from_itself_by_nothing_and_from_a_worse_one_by_more_than_luck():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 5)) < 0.3).astype(np.float32)
    weights = (rng.random((200, 5)) < 0.9).astype(np.float32)
    good = labels + rng.normal(0, 0.6, labels.shape)
    bad = labels + rng.normal(0, 1.2, labels.shape)
    good, bad = ((1 / (1 + np.exp(-scores))).astype(np.float32) for scores in (good, bad))
    models = [predictions_with(labels, probs, weights) for probs in (good, good, bad)]
    values, resampled = resample_map([(model, "fused") for model in models], resamples=100)
    np.testing.assert_array_equal(resampled[0], resampled[1])
    assert values[0] == pytest.approx(mean_average_precision(labels, good, weights), abs=1e-14)
    assert np.percentile(resampled[0] - resampled[2], 2.5) > 0
    # Paired: what makes a draw hard makes it hard for both.
    spread = (resampled[0] - resampled[2]).std()
    assert spread < np.hypot(resampled[0].std(), resampled[2].std())
    assert resampled[0].mean() == pytest.approx(values[0], abs=0.03)


def test_a_resampling_is_the_map_of_the_images_that_it_draws():
    rng = np.random.default_rng(1)
    labels, weights = rng.random((2, 60, 3)) < [[[0.2]], [[0.8]]]
    labels[:, 2] = False  # no positives: left out
    probs = np.round(rng.random((60, 3)), 1).astype(np.float32)  # many are equal
    _, resampled = resample_map([(predictions_with(labels, probs, weights), "fused")], 20, seed=5)
    draws = np.random.default_rng(5)
    for found in resampled[0]:
        rows = draws.integers(0, 60, 60)
        expected = mean_average_precision(labels[rows], probs[rows], weights[rows])
        assert found == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("what", "others"),
    [
        ("classes", {"classes": ("a", "c")}),
        ("pictures", {"rows": [1, 0, 2]}),
        ("labels", {"labels": np.ones((3, 2))}),
        ("labels that count", {"weights": np.eye(3, 2)}),
    ],
)
def test_what_differs_is_named(what, others):
    labels, weights, probs = np.zeros((3, 2)), np.ones((3, 2)), np.full((3, 2), 0.5)
    one = predictions_with(labels, probs, weights)
    other = predictions_with(others.get("labels", labels), probs, others.get("weights", weights))
    other.ids = other.ids[others.get("rows", [0, 1, 2])]
    found = {Path("one"): (one, ("a", "b")), Path("other"): (other, others.get("classes", ("a", "b")))}
    with pytest.raises(ValueError, match=f"^other was evaluated on other {what} than one: they can't"):
        check_comparable(found)
    check_comparable({Path("one"): (one, ("a", "b")), Path("again"): (one, ("a", "b"))})
