"""The numbers are those of metrics.py, of each stream its own, and localization is what it says."""

import json
import math

import numpy as np
import pytest
from made_predictions import CLASSES, predictions_with, random_predictions

from mcar_tf import metrics
from mcar_tf.evaluating import predictions as predictions_module
from mcar_tf.evaluating.metrics_file import to_json
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import (
    class_rows,
    count,
    count_confusions,
    evaluate_localization,
    evaluate_predictions,
)


def predictions_of(boxes, box_classes, ids=("a",)):
    """Predictions of which the regions alone matter."""
    empty = np.zeros((len(ids), 3), np.float32)
    boxes, box_classes = np.array(boxes, np.float32), np.array(box_classes, np.int32)
    scores = np.zeros(box_classes.shape, np.float32)
    return Predictions(np.array(ids), empty, empty, empty, empty, empty, boxes, box_classes, scores)


def test_each_stream_has_its_own_numbers():
    predictions = random_predictions()
    found = evaluate_predictions(predictions, threshold=0.5)
    assert found["images"] == 11
    for stream, probs in (
        ("global", predictions.global_probs),
        ("local", predictions.local_probs),
        ("fused", predictions.probs),
    ):
        truth = predictions.labels, probs
        expected = metrics.precision_recall_f1(*truth, 0.5, predictions.weights)
        assert {name: found[stream][name] for name in expected} == expected
        assert found[stream]["mAP"] == metrics.mean_average_precision(*truth, predictions.weights)
        assert found[stream]["top3"] == metrics.top_k_metrics(*truth, weights=predictions.weights)
    assert found["local"]["CF1"] != found["global"]["CF1"]


def test_a_row_a_class():
    predictions = random_predictions()
    rows = class_rows(count(predictions, [0.4, 0.5, 0.6]), CLASSES)
    assert [row["class"] for row in rows] == list(CLASSES)
    ap = metrics.average_precision(predictions.labels, predictions.probs, predictions.weights)
    assert [row["AP_fused"] for row in rows] == ap.tolist()
    found = metrics.precision_recall_f1(
        predictions.labels, predictions.probs, [0.4, 0.5, 0.6], predictions.weights
    )
    assert np.mean([row["precision"] for row in rows]) == pytest.approx(found["CP"])
    assert np.mean([row["recall"] for row in rows]) == pytest.approx(found["CR"])


@pytest.fixture
def small_blocks(monkeypatch):
    """Work goes on 8 classes or a few images at a time."""
    monkeypatch.setattr(predictions_module, "BLOCK", 100)


def test_blocks_give_the_numbers_of_the_whole(monkeypatch):
    predictions = random_predictions(images=37, classes=30)
    whole = count(predictions, 0.5, 0.3)
    monkeypatch.setattr(predictions_module, "BLOCK", 100)
    assert len(list(predictions.class_blocks())) == 4  # 8 classes each
    assert len(list(predictions.row_blocks())) == 13  # 3 images each
    parts = count(predictions, 0.5, 0.3)
    for stream, numbers in whole.streams.items():
        for field, value in vars(numbers).items():
            np.testing.assert_allclose(getattr(parts.streams[stream], field), value, rtol=1e-14)
        np.testing.assert_array_equal(parts.top3[stream], whole.top3[stream])


def test_confusions_of_all_classes_are_those_of_the_metric(small_blocks):
    predictions = random_predictions(images=37, classes=30)
    thresholds = np.linspace(0.2, 0.8, 30)
    chosen, claimed, pictures = count_confusions(predictions, thresholds, 30)
    expected = metrics.count_false_claims(
        predictions.labels, predictions.probs >= thresholds, predictions.weights
    )
    np.testing.assert_array_equal(chosen, np.arange(30))
    np.testing.assert_array_equal(claimed, expected[0])
    np.testing.assert_array_equal(pictures, expected[1])


def test_of_many_classes_those_with_the_most_false_claims_are_held_against_each_other(small_blocks):
    # Every picture shows class 3 and is said to show class 20 too; class 7 is claimed once, beside 3.
    labels, probs = np.zeros((5, 30)), np.zeros((5, 30), np.float32)
    labels[:, 3] = 1
    probs[:, [3, 20]] = 0.9
    probs[0, 7] = 0.9
    predictions = predictions_with(labels, probs)
    chosen, claimed, pictures = count_confusions(predictions, np.full(30, 0.6), 4)
    assert {3, 7, 20} <= set(chosen.tolist())
    at = {c: i for i, c in enumerate(chosen.tolist())}
    assert (claimed[at[3], at[20]], pictures[at[3], at[20]]) == (5, 5)
    assert claimed[at[3], at[7]] == 1


def test_without_positives_numbers_are_unknown_and_json_says_null():
    predictions = predictions_of(np.zeros((1, 0, 4)), np.zeros((1, 0)))
    found = evaluate_predictions(predictions)
    assert found["classes_without_positives"] == 3
    assert math.isnan(found["fused"]["mAP"])
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["fused"]["mAP"] is None
    assert math.isnan(class_rows(count(predictions), CLASSES)[0]["F1"])


def test_a_region_points_at_an_object_and_covers_another():
    # Region 0 is of class 0: its centre (0.25, 0.25) is in the first object, whose IoU with it is
    # 0.16 / 0.25 = 0.64; the second object of the class lies elsewhere. Region 1 is of class 1: its centre
    # (0.5, 0.5) is in no object, its IoU with the one object 0.25 * 0.5 / (1 * 0.5 + 0.5 * 0.5 - 0.125) =
    # 0.2.
    predictions = predictions_of([[[0, 0, 0.5, 0.5], [0, 0.25, 1, 0.75]]], [[0, 1]])
    boxes = np.array([[0, 0, 0.4, 0.4], [0.8, 0.8, 1, 1], [0, 0, 0.5, 0.5]], np.float32)
    found = evaluate_localization(predictions, {"a": (boxes, np.array([0, 0, 1]))})
    assert (found["regions"], found["objects"]) == (2, 3)
    # The centre lies on the last object's corner: what is on the border is inside.
    assert found["pointing_accuracy"] == 1
    assert found["objects_covered_30"] == pytest.approx(1 / 3)
    assert found["objects_covered_50"] == pytest.approx(1 / 3)
    # The whole image: centre in the last object alone; IoUs 0.16, 0.04, 0.25.
    assert found["whole_image"] == {
        "pointing_accuracy": 0.5,
        "objects_covered_30": 0,
        "objects_covered_50": 0,
    }


def test_a_region_of_a_class_that_is_not_there_is_no_matter_of_localization():
    predictions = predictions_of([[[0, 0, 1, 1]]], [[2]])
    found = evaluate_localization(predictions, {"a": (np.array([[0, 0, 1, 1.0]]), np.array([0]))})
    assert (found["regions"], found["objects"], found["objects_covered_30"]) == (0, 1, 0)
    assert math.isnan(found["pointing_accuracy"])
