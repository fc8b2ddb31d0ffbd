"""The numbers are those of metrics.py, of each stream its own, and localization is what it says."""

import json
import math

import numpy as np
import pytest
from made_predictions import CLASSES, random_predictions

from mcar_tf import metrics
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import evaluate_classes, evaluate_localization, evaluate_predictions, to_json


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
    rows = evaluate_classes(predictions, CLASSES, threshold=[0.4, 0.5, 0.6])
    assert [row["class"] for row in rows] == list(CLASSES)
    ap = metrics.average_precision(predictions.labels, predictions.probs, predictions.weights)
    assert [row["AP_fused"] for row in rows] == ap.tolist()
    found = metrics.precision_recall_f1(
        predictions.labels, predictions.probs, [0.4, 0.5, 0.6], predictions.weights
    )
    assert np.mean([row["precision"] for row in rows]) == pytest.approx(found["CP"])
    assert np.mean([row["recall"] for row in rows]) == pytest.approx(found["CR"])


def test_without_positives_numbers_are_unknown_and_json_says_null():
    predictions = predictions_of(np.zeros((1, 0, 4)), np.zeros((1, 0)))
    found = evaluate_predictions(predictions)
    assert found["classes_without_positives"] == 3
    assert math.isnan(found["fused"]["mAP"])
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["fused"]["mAP"] is None
    assert math.isnan(evaluate_classes(predictions, CLASSES)[0]["F1"])


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
