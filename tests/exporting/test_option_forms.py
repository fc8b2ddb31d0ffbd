"""Options beyond the paper in every exported form: built-in ops, and the model's numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from little_network import little_network

from mcar_tf.exporting.parity import looks_of
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, list_ops, load_runner
from mcar_tf.models.batch_norm import MOVING
from mcar_tf.models.mcar import build_mcar

CLASSES = ("cat", "dog", "sheep")
OPTIONS = {
    "glance": {
        "image_size": 64,
        "glance_size": 32,
        "fusion": "mean",
        "batch_norm": "per_stream",
        "pooling": "csra",
        "localizer": "moments",
        "min_box_cells": 1.5,
    },
    "max": {
        "image_size": 32,
        "pooling": "csra",
        "csra_temperature": float("inf"),
        "batch_norm": "frozen",
        "look_band": (0.1, 0.9),
        "min_box_cells": 1.0,
    },
}
OPTIONS["doubt"] = OPTIONS["glance"] | {"look_doubt": 2.96}  # two of the six pictures leave less


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    keras.utils.set_random_seed(3)
    model = build_mcar(
        len(CLASSES), little_network((8, 16, 16, 16, 16)), top_n=3, weights=None, **OPTIONS[request.param]
    )
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([5 * kernel, bias])
    rng = np.random.default_rng(0)
    for variable in model.variables:  # statistics that tell the streams apart
        if variable.name in MOVING:
            variable.assign(variable + rng.uniform(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def pictures(model):
    """Six pictures of blurred noise, of whole levels."""
    side = model.image_size
    noise = tf.random.stateless_uniform((6, 6, 6, 3), (0, 0), 0, 255)
    return np.round(tf.image.resize(noise, (side, side), "bicubic").numpy().clip(0, 255))


def assert_the_models_numbers(model, image, found):
    """Given the form's own boxes, which a rounding error may have moved: those are compared too, loosely."""
    expected = model(image, boxes=tf.constant(found["boxes"]))
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    return np.isclose(found["boxes"], model(image)["boxes"], atol=1e-4)


def test_a_file_for_phones_has_built_in_ops_and_the_models_numbers(model, pictures):
    content = convert_tflite(model)
    ops = list_ops(content)
    assert not [name for counts in ops.values() for name in counts if name.startswith(("CUSTOM", "Flex"))]
    if model.glance_size < model.image_size:
        assert ops["mcar"]["AVERAGE_POOL_2D"] == ops["global_only"]["AVERAGE_POOL_2D"] == 1
    answer, one_pass, look_at = (load_runner(content, name) for name in ("mcar", "global_only", "look_at"))
    same_boxes = []
    for picture in pictures:
        image = picture[np.newaxis]
        same_boxes.append(assert_the_models_numbers(model, image, answer(image=image)))
        np.testing.assert_allclose(
            one_pass(image=image)["global_probs"], model(image)["global_probs"], atol=1e-4
        )
        boxes = np.float32([[[0.25, 0.0, 0.75, 0.5]]])
        expected = tf.sigmoid(model.look_at(image, boxes)[:, 0])
        np.testing.assert_allclose(look_at(image=image, boxes=boxes)["probs"], expected, atol=1e-4)
    assert np.mean(same_boxes) > 0.8


def test_a_network_that_would_stay_in_float_is_refused_in_8_bits(make_model):
    model = make_model(top_n=0, backbone=little_network())
    with pytest.raises(ValueError, match="int8 leaves the first 3 convolutions of a network in float"):
        convert_tflite(model, "int8", np.zeros((1, 32, 32, 3), np.float32))


def test_a_file_in_8_bits_is_near_the_model(model, pictures):
    pytest.importorskip("litert_quantizer")
    content = convert_tflite(model, "int8", list(pictures))
    answer = load_runner(content)
    for picture in pictures:
        image = picture[np.newaxis]
        found = answer(image=image)
        looks = looks_of(found, model.look_band, model.look_doubt)  # 8 bits may decide otherwise
        expected = model(image, boxes=tf.constant(found["boxes"]), looks=tf.constant(looks))
        for name in ("global_probs", "local_probs", "probs"):
            np.testing.assert_allclose(found[name], expected[name], atol=0.1, err_msg=name)


def test_a_saved_model_has_the_models_numbers(model, pictures, tmp_path):
    write_saved_model(model, CLASSES, tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    found = signatures["serve_tensor"](images=tf.constant(pictures.astype(np.uint8)))
    found = {name: value.numpy() for name, value in found.items()}
    assert np.mean(assert_the_models_numbers(model, pictures, found)) > 0.8
