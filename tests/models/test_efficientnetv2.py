"""A backbone that scales its own images and has dropout, swish and squeeze-and-excitation: one line of the table."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, list_ops, load_runner
from mcar_tf.models.batch_norm import FusedBatchNormalization
from mcar_tf.models.keras_internals import layers_of
from mcar_tf.models.mcar import build_mcar
from mcar_tf.training.callbacks import check_finite
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD

SIZE, CLASSES = 64, 3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_mcar(CLASSES, "efficientnetv2_b0", SIZE, top_n=1, weights=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)


def test_the_network_itself_scales_its_images(model, images):
    inside = model.backbone.layers[-1]
    assert [type(layer).__name__ for layer in inside.layers[:3]] == [
        "InputLayer",
        "Rescaling",
        "Normalization",
    ]
    np.testing.assert_array_equal(model.backbone(images), inside(images))


def test_its_batch_norm_is_fused_and_follows_as_the_papers_does(model):
    norms = layers_of(model.backbone, keras.layers.BatchNormalization)
    assert len(norms) == 59
    assert {type(norm) for norm in norms} == {FusedBatchNormalization}
    assert {norm.momentum for norm in norms} == {0.9}


def test_it_trains_a_step_with_little_memory(model, images):
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
def test_its_exported_forms_give_what_it_gives(model, images, tmp_path):
    write_saved_model(model, ("a", "b", "c"), tmp_path / "1")
    phone = convert_tflite(model)
    assert not [op for ops in list_ops(phone).values() for op in ops if op.startswith("CUSTOM")]
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    file = io.BytesIO()
    Image.fromarray(images[0].astype(np.uint8)).save(file, "PNG")
    for found in (
        load_runner(phone)(image=images[:1]),
        served(encoded=tf.constant([file.getvalue()])),
    ):
        expected = model(images[:1], boxes=found["boxes"])
        for name in ("global_probs", "local_probs", "probs"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
