"""Every image counts once, the numbers are those of metrics.py, and localization is what it says."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf import metrics
from mcar_tf.evaluating import evaluation
from mcar_tf.models.mcar import build_mcar

CLASSES = ("cat", "dog", "car")


class Stub(keras.Model):
    """Probabilities are the mean red, green and blue of the image's left half; one region, the left half."""

    def call(self, images, training=False):
        global_probs = tf.reduce_mean(images[:, :, : images.shape[2] // 2], axis=(1, 2)) / 255
        local_probs = global_probs**2
        return {
            "global_probs": global_probs,
            "local_probs": local_probs,
            "probs": tf.maximum(global_probs, local_probs),
            "boxes": tf.tile([[[0.0, 0.0, 1.0, 0.5]]], (tf.shape(images)[0], 1, 1)),
            "box_classes": tf.argmax(global_probs, axis=1, output_type=tf.int32)[:, None],
            "box_probs": tf.reduce_max(local_probs, axis=1, keepdims=True),
        }


def make_dataset(images=11, batch_size=4, side=8):
    rng = np.random.default_rng(0)
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": rng.uniform(0, 255, (images, side, side, 3)).astype(np.float32),
            "labels": rng.integers(0, 2, (images, 3)).astype(np.float32),
            "weights": rng.integers(0, 2, (images, 3)).astype(np.float32),
            "id": [f"image-{i}" for i in range(images)],
        }
    ).batch(batch_size)


def predictions_of(boxes, box_classes, ids=("a",)):
    """Predictions of which the regions alone matter."""
    empty = np.zeros((len(ids), 3), np.float32)
    boxes, box_classes = np.array(boxes, np.float32), np.array(box_classes, np.int32)
    scores = np.zeros(box_classes.shape, np.float32)
    return evaluation.Predictions(
        np.array(ids), empty, empty, empty, empty, empty, boxes, box_classes, scores
    )


def test_every_image_counts_once_and_in_order():
    dataset = make_dataset()  # 4, 4 and 3 images
    predictions = evaluation.predict_dataset(Stub(), dataset)
    assert predictions.ids.tolist() == [f"image-{i}" for i in range(11)]
    whole = next(iter(dataset.unbatch().batch(11)))
    np.testing.assert_array_equal(predictions.labels, whole["labels"])
    np.testing.assert_array_equal(predictions.weights, whole["weights"])
    expected = Stub()(whole["image"])
    for name in evaluation.OUTPUTS:
        np.testing.assert_allclose(getattr(predictions, name), expected[name], atol=1e-6, err_msg=name)


def test_all_batches_and_epochs_share_one_trace():
    model = Stub()
    traces = []
    call = model.call
    model.call = lambda images, training=False: traces.append(images.shape) or call(images)
    for _ in range(2):
        evaluation.predict_dataset(model, make_dataset())
    assert [shape.as_list() for shape in traces] == [[None, 8, 8, 3]]


def test_flip_averages_each_stream_over_both_images_and_fuses_then():
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[:, :, :4] = 255 * np.array([0.8, 0.2, 0])
    image[:, :, 4:] = 255 * np.array([0.4, 0.6, 0])
    dataset = tf.data.Dataset.from_tensors(
        {"image": image, "labels": [[1.0, 0, 0]], "weights": [[1.0, 1, 1]], "id": ["a"]}
    )
    predictions = evaluation.predict_dataset(Stub(), dataset, flip=True)
    np.testing.assert_allclose(predictions.global_probs, [[0.6, 0.4, 0]], atol=1e-6)
    np.testing.assert_allclose(predictions.local_probs, [[0.4, 0.2, 0]], atol=1e-6)
    np.testing.assert_allclose(predictions.probs, [[0.6, 0.4, 0]], atol=1e-6)
    np.testing.assert_array_equal(predictions.boxes, [[[0, 0, 1, 0.5]]])


@pytest.mark.parametrize("top_n", [0, 2])
def test_a_real_model_is_predicted_as_it_is_called(top_n):
    keras.utils.set_random_seed(0)
    model = build_mcar(3, backbone="tiny_resnet", image_size=32, top_n=top_n, weights=None)
    dataset = make_dataset(images=5, batch_size=3, side=32)
    predictions = evaluation.predict_dataset(model, dataset)
    assert predictions.boxes.shape == (5, top_n, 4)
    # Given the same boxes: by itself, an eager call may round a box to the next pixel.
    first = model(next(iter(dataset))["image"], boxes=predictions.boxes[:3])
    for name in evaluation.OUTPUTS:
        np.testing.assert_allclose(getattr(predictions, name)[:3], first[name], atol=1e-5, err_msg=name)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="holds no images"):
        evaluation.predict_dataset(Stub(), make_dataset().take(0))


def test_each_stream_has_its_own_numbers():
    predictions = evaluation.predict_dataset(Stub(), make_dataset())
    found = evaluation.evaluate_predictions(predictions, threshold=0.5)
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
    predictions = evaluation.predict_dataset(Stub(), make_dataset())
    rows = evaluation.evaluate_classes(predictions, CLASSES, threshold=[0.4, 0.5, 0.6])
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
    found = evaluation.evaluate_predictions(predictions)
    assert found["classes_without_positives"] == 3
    assert math.isnan(found["fused"]["mAP"])
    assert json.loads(json.dumps(evaluation.to_json(found), allow_nan=False))["fused"]["mAP"] is None
    assert math.isnan(evaluation.evaluate_classes(predictions, CLASSES)[0]["F1"])


def test_a_region_points_at_an_object_and_covers_another():
    # Region 0 is of class 0: its centre (0.25, 0.25) is in the first object, whose IoU with it is
    # 0.16 / 0.25 = 0.64; the second object of the class lies elsewhere. Region 1 is of class 1: its centre
    # (0.5, 0.5) is in no object, its IoU with the one object 0.25 * 0.5 / (1 * 0.5 + 0.5 * 0.5 - 0.125) =
    # 0.2.
    predictions = predictions_of([[[0, 0, 0.5, 0.5], [0, 0.25, 1, 0.75]]], [[0, 1]])
    boxes = np.array([[0, 0, 0.4, 0.4], [0.8, 0.8, 1, 1], [0, 0, 0.5, 0.5]], np.float32)
    found = evaluation.evaluate_localization(predictions, {"a": (boxes, np.array([0, 0, 1]))})
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
    found = evaluation.evaluate_localization(predictions, {"a": (np.array([[0, 0, 1, 1.0]]), np.array([0]))})
    assert (found["regions"], found["objects"], found["objects_covered_30"]) == (0, 1, 0)
    assert math.isnan(found["pointing_accuracy"])


def test_predictions_are_read_as_they_were_written(tmp_path):
    predictions = evaluation.predict_dataset(Stub(), make_dataset())
    evaluation.write_predictions(tmp_path / "predictions.npz", predictions, CLASSES, "test")
    again, classes, split = evaluation.read_predictions(tmp_path / "predictions.npz")
    assert (classes, split) == (CLASSES, "test")
    for name, value in vars(predictions).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]
