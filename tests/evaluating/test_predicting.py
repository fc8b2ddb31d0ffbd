"""Every image counts once, in its order, as the model sees it."""

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
