"""Backbones of `keras.applications`, each one line of the table: they scale images as Keras does, train and export.

Small networks stand for the rest in the quick tests; all others of the table are slow ones.
"""

import importlib
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mcar_tf.exporting.quantize import quantize_tflite
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, list_ops, load_runner
from mcar_tf.models.backbone_table import BACKBONES
from mcar_tf.models.backbones import OWN_NETWORKS, SCALINGS
from mcar_tf.models.batch_norm import FusedBatchNormalization
from mcar_tf.models.keras_internals import layers_of
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.callbacks import check_finite
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD

SIZE, CLASSES = 64, 3
# Backbone -> the module of `keras.applications` with its `preprocess_input`.
MODULES = {
    "mobilenet_v2": "mobilenet_v2",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "efficientnetv2_b0": "efficientnet_v2",
    "efficientnetv2_s": "efficientnet_v2",
    "mobilenet_v3_large": "mobilenet_v3",
    "densenet121": "densenet",
    "convnext_tiny": "convnext",
}
# Backbone -> its number of BatchNorm layers.
NORMS = {
    "efficientnetv2_b0": 59,
    "mobilenet_v3_large": 46,
    "efficientnetv2_s": 110,
    "densenet121": 121,
    "convnext_tiny": 0,
}
# Those whose phone form is held to the model, and of these the ones that are also quantized.
PHONE = ["efficientnetv2_b0", "mobilenet_v3_large", "efficientnetv2_s", "densenet121"]
INT8 = ["efficientnetv2_b0", "mobilenet_v3_large"]
QUICK = "efficientnetv2_b0"
EACH = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NORMS]


@pytest.fixture(scope="module")
def models():
    """Each backbone's model, made once."""
    made = {}

    def model(name):
        if name not in made:
            keras.utils.set_random_seed(0)
            made[name] = build_mcar(CLASSES, name, SIZE, top_n=1, weights=None)
        return made[name]

    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)


def test_these_are_all_that_keras_applications_have():
    of_keras = {name for name, entry in BACKBONES.items() if entry.network not in OWN_NETWORKS}
    assert of_keras == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_images_are_scaled_as_keras_does(name, images):
    module = importlib.import_module(f"keras.applications.{MODULES[name]}")
    ours = SCALINGS[BACKBONES[name].scaling](tf.constant(images))
    np.testing.assert_allclose(ours, module.preprocess_input(images.copy()), atol=1e-4)


@pytest.mark.parametrize("name", EACH)
def test_a_network_without_scaling_in_the_table_scales_its_images_itself(models, images, name):
    model = models(name)
    inside = model.backbone.layers[-1]
    first = [type(layer).__name__ for layer in inside.layers[1:3]]
    scales = bool({"Rescaling", "Normalization"} & set(first))
    assert scales == (BACKBONES[name].scaling == "none")
    scaled = SCALINGS[BACKBONES[name].scaling](tf.constant(images))
    np.testing.assert_array_equal(model.backbone(images), inside(scaled))


@pytest.mark.parametrize("name", EACH)
def test_its_batch_norm_is_fused_and_follows_as_the_papers_does(models, name):
    norms = layers_of(models(name).backbone, keras.layers.BatchNormalization)
    assert len(norms) == NORMS[name]
    assert bool(norms) == BACKBONES[name].has_batch_norm
    assert {type(norm) for norm in norms} <= {FusedBatchNormalization}
    assert {norm.momentum for norm in norms} <= {0.9}


@pytest.mark.parametrize("name", EACH)
def test_it_trains_a_step_with_little_memory(models, images, name):
    model = models(name)
    model.compile(TwoRateSGD(0.01), binary_cross_entropy, low_memory=True)
    before = model.get_weights()
    labels = np.eye(CLASSES, dtype=np.float32)[:2]
    losses = model.train_step(
        {"image": tf.constant(images), "labels": labels, "weights": np.ones_like(labels)}
    )
    assert all(np.isfinite(loss) for loss in losses.values())
    check_finite(model)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert np.mean(changed) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", PHONE)
def test_its_phone_form_gives_what_it_gives(models, images, name):
    model = models(name)
    phone = convert_tflite(model)
    assert not [op for ops in list_ops(phone).values() for op in ops if op.startswith("CUSTOM")]
    _expect_the_same(model, images, load_runner(phone)(image=images[:1]), atol=1e-4)
    if name not in INT8:
        return
    in_8_bits = quantize_tflite(phone, images)
    assert len(in_8_bits) < 0.45 * len(phone)
    _expect_the_same(model, images, load_runner(in_8_bits)(image=images[:1]), atol=0.05)


@pytest.mark.slow
def test_a_saved_model_gives_what_it_gives(models, images, tmp_path):
    model = models(QUICK)
    write_saved_model(model, ("a", "b", "c"), tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    file = io.BytesIO()
    Image.fromarray(images[0].astype(np.uint8)).save(file, "PNG")
    _expect_the_same(model, images, served(encoded=tf.constant([file.getvalue()])), atol=1e-4)


def _expect_the_same(model, images, found, atol):
    expected = model(images[:1], boxes=found["boxes"])
    for name in ("global_probs", "local_probs", "probs"):
        np.testing.assert_allclose(found[name], expected[name], atol=atol, err_msg=name)
