"""The ONNX file gives the model's numbers in onnxruntime, for any number of pictures."""

import json

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from mcar_tf.exporting.forms import Material, find_form
from mcar_tf.exporting.parity import measure_parity, missed_bars

pytest.importorskip("tf2onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ("cat", "dog", "sheep", "Tür", "potted plant")


def write(model, path, **more):
    from mcar_tf.exporting.onnx_file import load_form, write_form

    write_form(Material(model, CLASSES, **more), path)
    return load_form(path)


def test_it_keeps_the_bars_and_takes_any_number_of_pictures(model, batch, tmp_path):
    form = write(model, tmp_path / "mcar.onnx", thresholds=(0.5, 0.2, 0.9, 0.4, 0.3))
    parity = measure_parity(model, {"mcar.onnx": form}, [batch])["mcar.onnx"]
    assert parity.pictures == 6
    assert missed_bars(find_form("mcar.onnx").bar, parity) == []
    alone = form.answer({"image": batch["image"][:1]})
    assert {name: value.shape for name, value in alone.items()} == {
        **dict.fromkeys(("probs", "global_probs", "local_probs"), (1, 5)),
        **{"boxes": (1, 2, 4), "box_classes": (1, 2), "box_probs": (1, 2)},
    }
    np.testing.assert_allclose(alone["global_probs"], model(batch["image"][:1])["global_probs"], atol=1e-4)
    notes = onnxruntime.InferenceSession(tmp_path / "mcar.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(notes["labels"]) == list(CLASSES)
    assert json.loads(notes["thresholds"]) == [0.5, 0.2, 0.9, 0.4, 0.3]


def crops_of_photographs():
    """12 parts of scikit-learn's two photographs, (12, 32, 32, 3)."""
    photos = load_sample_images().images  # (427, 640, 3) uint8
    parts = [
        photo[top : top + 213, left : left + 213]
        for photo in photos
        for top in (0, 213)
        for left in (0, 213, 426)
    ]
    return tf.image.resize(np.stack(parts), (32, 32), antialias=True).numpy()


def test_photographs_keep_the_bars_too(model, tmp_path):
    form = write(model, tmp_path / "mcar.onnx")
    parity = measure_parity(model, {"mcar.onnx": form}, [{"image": crops_of_photographs()}])["mcar.onnx"]
    assert parity.pictures == 12
    assert missed_bars(find_form("mcar.onnx").bar, parity) == []


def test_a_model_without_regions_has_no_boxes(plain_model, batch, tmp_path):
    outputs = write(plain_model, tmp_path / "mcar.onnx").answer(batch)
    assert set(outputs) == {"probs", "global_probs", "local_probs"}
    np.testing.assert_allclose(outputs["probs"], plain_model(batch["image"])["probs"], atol=1e-4)
