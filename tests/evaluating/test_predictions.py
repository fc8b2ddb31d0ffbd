"""Predictions take three numbers and two bits for each image and class, and are told what they were given."""

import numpy as np
import pytest
from loading import loads
from made_predictions import random_predictions

from mcar_tf.evaluating.predictions import Flags, FusedProbs, check_numbers


@pytest.mark.parametrize("classes", [1, 8, 13, 80])
def test_flags_are_what_was_packed(classes):
    values = np.random.default_rng(classes).integers(0, 2, (7, classes)).astype(bool)
    flags = Flags.of(values)
    assert flags.bits.nbytes == 7 * -(-classes // 8)
    np.testing.assert_array_equal(flags.unpack(), values)
    for rows, columns in (
        (slice(2, 5), slice(None)),
        (slice(None), slice(3, 11)),
        (slice(1, 2), slice(8, 99)),
    ):
        np.testing.assert_array_equal(flags.unpack(rows, columns), values[rows, columns])
    rows, columns = np.array([[0], [6]]), np.array([[0, classes - 1]])
    np.testing.assert_array_equal(flags.pairs(rows, columns), values[rows, columns])


def test_fused_probabilities_are_kept_only_if_they_are_not_the_larger_ones():
    predictions = random_predictions(images=9)
    streams = predictions.global_probs, predictions.local_probs
    larger, mean = np.maximum(*streams), (streams[0] + streams[1]) / 2
    fused = FusedProbs(*streams)
    for rows in (slice(0, 4), slice(4, 9)):
        fused.put(rows, larger[rows])
    assert fused.kept is None
    fused = FusedProbs(*streams)
    fused.put(slice(0, 4), larger[:4])
    fused.put(slice(4, 9), mean[4:])
    np.testing.assert_array_equal(fused.kept, np.concatenate([larger[:4], mean[4:]]))


def test_a_part_of_the_predictions_is_a_part_of_the_whole():
    predictions = random_predictions(images=9, classes=20)
    rows, classes = slice(2, 7), slice(8, 20)
    for name, whole in (
        ("global", predictions.global_probs),
        ("local", predictions.local_probs),
        ("fused", predictions.probs),
    ):
        np.testing.assert_array_equal(predictions.stream(name, rows, classes), whole[rows, classes])
    labels, weights = predictions.truth(rows, classes)
    np.testing.assert_array_equal(labels, predictions.labels[rows, classes])
    np.testing.assert_array_equal(weights, predictions.weights[rows, classes])
    outputs = predictions.outputs(3)
    np.testing.assert_array_equal(outputs["probs"], predictions.probs[3])
    np.testing.assert_array_equal(outputs["boxes"], predictions.boxes[3])
    which = np.array([[0], [4]]), np.array([[3, 7], [1, 19]])
    np.testing.assert_array_equal(predictions.pairs(*which), predictions.probs[which])


def test_an_image_without_numbers_is_named():
    outputs = {name: np.full((3, 2), 0.5, np.float32) for name in ("global_probs", "local_probs")}
    check_numbers(outputs, ["a", "b", "c"])
    outputs["local_probs"][1, 1] = np.nan
    with pytest.raises(ValueError, match="no numbers for 1 of 3 images, the first of them b"):
        check_numbers(outputs, ["a", "b", "c"])


def test_reading_and_measuring_load_no_tensorflow():
    names = (
        "results",
        "predictions",
        "predictions_file",
        "metrics_file",
        "columns",
        "comparing",
        "calibration",
    )
    assert loads("mcar_tf.evaluating.tables", *(f"mcar_tf.evaluating.{name}" for name in names)) == []
