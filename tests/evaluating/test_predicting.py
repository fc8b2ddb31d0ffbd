"""Every image counts once, in its order, as the model sees it."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.evaluating.predicting import OUTPUTS, predict_dataset
from mcar_tf.models.mcar import build_mcar


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


def test_every_image_counts_once_and_in_order():
    dataset = make_dataset()  # 4, 4 and 3 images
    predictions = predict_dataset(Stub(), dataset)
    assert predictions.ids.tolist() == [f"image-{i}" for i in range(11)]
    whole = next(iter(dataset.unbatch().batch(11)))
    np.testing.assert_array_equal(predictions.labels, whole["labels"])
    np.testing.assert_array_equal(predictions.weights, whole["weights"])
    expected = Stub()(whole["image"])
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(predictions, name), expected[name], atol=1e-6, err_msg=name)


def test_all_batches_and_epochs_share_one_trace():
    model = Stub()
    traces = []
    call = model.call
    model.call = lambda images, training=False: traces.append(images.shape) or call(images)
    for _ in range(2):
        predict_dataset(model, make_dataset())
    assert [shape.as_list() for shape in traces] == [[None, 8, 8, 3]]


def test_flip_averages_each_stream_over_both_images_and_fuses_then():
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[:, :, :4] = 255 * np.array([0.8, 0.2, 0])
    image[:, :, 4:] = 255 * np.array([0.4, 0.6, 0])
    dataset = tf.data.Dataset.from_tensors(
        {"image": image, "labels": [[1.0, 0, 0]], "weights": [[1.0, 1, 1]], "id": ["a"]}
    )
    predictions = predict_dataset(Stub(), dataset, flip=True)
    np.testing.assert_allclose(predictions.global_probs, [[0.6, 0.4, 0]], atol=1e-6)
    np.testing.assert_allclose(predictions.local_probs, [[0.4, 0.2, 0]], atol=1e-6)
    np.testing.assert_allclose(predictions.probs, [[0.6, 0.4, 0]], atol=1e-6)
    np.testing.assert_array_equal(predictions.boxes, [[[0, 0, 1, 0.5]]])


def test_flip_fuses_by_the_models_rule():
    keras.utils.set_random_seed(0)
    model = build_mcar(3, backbone="tiny_resnet", image_size=32, top_n=2, weights=None, fusion="mean")
    predictions = predict_dataset(model, make_dataset(images=5, batch_size=3, side=32), flip=True)
    streams = predictions.global_probs, predictions.local_probs
    logits = [np.log(probs) - np.log(1 - probs) for probs in streams]
    np.testing.assert_allclose(predictions.probs, 1 / (1 + np.exp(-sum(logits) / 2)), atol=1e-6)
    sure = tf.constant([[0.0, 1.0, 0.0, 1.0]]), tf.constant([[0.0, 1.0, 1.0, 0.5]])
    np.testing.assert_allclose(model.fuse_probs(*sure), [[0.0, 1.0, 0.5, 1.0]], atol=1e-7)


@pytest.mark.parametrize("top_n", [0, 2])
def test_a_real_model_is_predicted_as_it_is_called(top_n):
    keras.utils.set_random_seed(0)
    model = build_mcar(3, backbone="tiny_resnet", image_size=32, top_n=top_n, weights=None)
    dataset = make_dataset(images=5, batch_size=3, side=32)
    predictions = predict_dataset(model, dataset)
    assert predictions.boxes.shape == (5, top_n, 4)
    # Given the same boxes: by itself, an eager call may round a box to the next pixel.
    first = model(next(iter(dataset))["image"], boxes=predictions.boxes[:3])
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(predictions, name)[:3], first[name], atol=1e-5, err_msg=name)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="holds no images"):
        predict_dataset(Stub(), make_dataset().take(0))


class ManyClasses(keras.Model):
    """Answers of the right shape for 2,000 classes, in two streams."""

    def __init__(self, mean=False):
        super().__init__()
        self.mean = mean

    def call(self, images, training=False):
        first = tf.reshape(images, (tf.shape(images)[0], 2000, -1))
        streams = first[..., 0] / 256, first[..., 1] / 256
        return {
            "global_probs": streams[0],
            "local_probs": streams[1],
            "probs": (streams[0] + streams[1]) / 2 if self.mean else tf.maximum(*streams),
            "boxes": tf.zeros((tf.shape(images)[0], 1, 4)),
            "box_classes": tf.zeros((tf.shape(images)[0], 1), tf.int32),
            "box_probs": tf.zeros((tf.shape(images)[0], 1)),
        }


@pytest.mark.parametrize(("mean", "most"), [(False, 2.3), (True, 3.3)])
@pytest.mark.parametrize("expected", [None, 1500])
def test_predictions_take_three_numbers_for_each_image_and_class_at_most(mean, most, expected):
    images = np.random.default_rng(0).uniform(0, 255, (1500, 40, 50, 2)).astype(np.float32)
    truth = np.random.default_rng(1).integers(0, 2, (1500, 2000)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices(
        {"image": images, "labels": truth, "weights": truth, "id": [str(i) for i in range(1500)]}
    ).batch(50)
    model = ManyClasses(mean)
    predict_dataset(model, batches.take(1))  # what is made once
    tracemalloc.start()
    predictions = predict_dataset(model, batches, images=expected)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 2 or 3 numbers of 4 bytes, and 2 bits; arrays that grow are a quarter too long at times.
    growth = 1.25 if expected is None else 1
    assert peak < growth * most * truth.nbytes
    np.testing.assert_array_equal(predictions.labels, truth)
    np.testing.assert_array_equal(predictions.global_probs, images.reshape(1500, 2000, 2)[..., 0] / 256)
    assert (predictions.fused_probs is not None) == mean
