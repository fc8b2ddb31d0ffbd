"""What a phone sees: one file of built-in ops that gives the model's numbers."""

import numpy as np
import pytest

from mcar_tf.exporting.tflite import convert_tflite, list_ops, load_runner
from mcar_tf.models.crop import crop_and_resize


@pytest.fixture(scope="module")
def float32(model):
    return convert_tflite(model)


def test_float32_gives_what_the_model_gives(model, float32, batch):
    answer = load_runner(float32)
    for image in batch["image"]:
        expected = model(image[np.newaxis])
        found = answer(image=image[np.newaxis])
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)


def test_global_only_gives_the_global_stream(model, float32, batch):
    image = batch["image"][:1]
    found = load_runner(float32, "global_only")(image=image)
    assert set(found) == {"global_probs"}
    np.testing.assert_allclose(found["global_probs"], model(image)["global_probs"], atol=1e-4)


def test_ops_are_built_in(float32):
    ops = list_ops(float32)
    for signature, counts in ops.items():
        print(f"{signature}: {', '.join(f'{name} x{count}' for name, count in sorted(counts.items()))}")
    assert set(ops) == {"mcar", "global_only"}
    assert not [name for counts in ops.values() for name in counts if name.startswith("CUSTOM")]
    # One pass in the one, two in the other.
    assert ops["mcar"]["CONV_2D"] == 2 * ops["global_only"]["CONV_2D"]


def test_an_op_that_is_not_built_in_fails_the_conversion(model, monkeypatch):
    monkeypatch.setattr("mcar_tf.exporting.tflite.crop_and_resize_portable", crop_and_resize)
    with pytest.raises(Exception, match="CropAndResize"):
        convert_tflite(model)


def test_weights_are_stored_once(model, float32):
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    assert weights > 300_000
    assert len(float32) < weights + 60_000  # the two signatures' graphs


def test_the_model_keeps_its_own_crop(model, float32):
    assert model.crop is crop_and_resize


def test_without_regions_there_are_no_boxes(plain_model, batch):
    image = batch["image"][:1]
    found = load_runner(convert_tflite(plain_model))(image=image)
    assert set(found) == {"probs", "global_probs", "local_probs"}
    np.testing.assert_allclose(found["probs"], plain_model(image)["probs"], atol=1e-4)


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("float16", 0.6, 0.05), ("dynamic", 0.4, 0.2)])
def test_smaller_weights_give_nearly_the_same(model, float32, batch, precision, share, tolerance):
    content = convert_tflite(model, precision)
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    assert len(float32) - len(content) > (1 - share) * 0.9 * weights
    answer = load_runner(content, "global_only")
    for image in batch["image"]:
        found = answer(image=image[np.newaxis])["global_probs"]
        np.testing.assert_allclose(found, model(image[np.newaxis])["global_probs"], atol=tolerance)


def test_an_unknown_precision_is_refused(model):
    with pytest.raises(ValueError, match="`precision` must be one of float32, float16, dynamic, int8"):
        convert_tflite(model, "int4")


def test_int8_without_calibration_pictures_is_refused(model):
    with pytest.raises(ValueError, match="`calibration` pictures are what int8 needs"):
        convert_tflite(model, "int8")
