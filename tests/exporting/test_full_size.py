"""The model that phones get, at its full size: how large its files are, and how near the model on real pictures."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.exporting import saved_model, tflite
from mcar_tf.exporting.forms import find_form
from mcar_tf.exporting.parity import measure_parity, missed_bars
from mcar_tf.models.mcar import build_mcar
from pipelines.decode import decode_and_resize
from pipelines.headers import read_orientation

pytestmark = pytest.mark.slow
CLASSES = tuple(f"class {c}" for c in range(80))
SIZE, PICTURES, BATCH_SIZE = 256, 50, 10


@pytest.fixture(scope="module")
def model():
    """MobileNet-v2 at full width, untrained."""
    keras.utils.set_random_seed(0)
    return build_mcar(len(CLASSES), "mobilenet_v2", SIZE, weights=None)


def settle(model, images):
    """Give an untrained network what training would: activations of unit variance, and logits that differ."""
    normalizations = [
        layer for layer in model.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.momentum = 0.0  # the moving statistics are then those of the last batch
    model.backbone(images, training=True)
    kernel, bias = model.classifier.get_weights()
    logits = model.global_pass(images, training=False)[1].numpy()
    scale = 2 / logits.std()
    model.classifier.set_weights([scale * kernel, bias - scale * logits.mean(axis=0)])


def test_the_files_are_small_enough_for_a_phone(model):
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    sizes = {
        "float32": len(tflite.convert_tflite(model)),
        "int8": len(tflite.convert_tflite(model, "int8", images)),
    }
    print({name: f"{size / 1e6:.2f} MB" for name, size in sizes.items()})
    assert sizes["float32"] <= 10e6
    assert sizes["int8"] <= 4e6


def test_both_forms_give_the_models_numbers_on_real_pictures(model, tmp_path):
    root = os.environ.get("MCAR_TF_TEST_DATA")
    if not root:
        pytest.skip("MCAR_TF_TEST_DATA names no folder of real pictures")
    files = sorted(Path(root, "voc", "VOCdevkit").rglob("JPEGImages/*.jpg"))[:PICTURES]
    assert len(files) == PICTURES
    encoded = [file.read_bytes() for file in files]
    images = np.stack(
        [decode_and_resize(tf.constant(data), read_orientation(tf.constant(data)), SIZE) for data in encoded]
    )
    settle(model, images[:BATCH_SIZE])
    saved_model.write_saved_model(model, CLASSES, tmp_path / "1")
    tflite.write_tflite(model, CLASSES, tmp_path / "mcar-float32.tflite")
    forms = {
        "saved_model": saved_model.load_form(tmp_path / "1"),
        "mcar-float32.tflite": tflite.load_form(tmp_path / "mcar-float32.tflite"),
    }
    batches = [
        {"image": images[i : i + BATCH_SIZE], "encoded": np.array(encoded[i : i + BATCH_SIZE], object)}
        for i in range(0, PICTURES, BATCH_SIZE)
    ]
    for name, parity in measure_parity(model, forms, batches).items():
        print(name, parity)
        assert parity.pictures == PICTURES
        assert parity.global_difference <= 1e-4
        assert parity.local_difference <= 1e-4
        assert not missed_bars(find_form(name).bar, parity)
