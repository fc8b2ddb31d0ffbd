"""A small model whose maps have peaks, and real-looking pictures for it."""

import io

import numpy as np
import pytest
from PIL import Image

CLASSES = ("cat", "dog", "sheep", "Tür", "potted plant")
SIZE = 32


@pytest.fixture(scope="session")
def model():
    """Untrained, but decided: large head weights, so that maps, boxes and probabilities differ."""
    return build_model(top_n=2)


@pytest.fixture(scope="session")
def make_model():
    """`build_model`, for tests that need several."""
    return build_model


@pytest.fixture(scope="session")
def plain_model():
    """The same without regions."""
    return build_model(top_n=0)


@pytest.fixture(scope="session")
def encoded():
    """Six JPEGs of blurred noise, 48 x 40 px."""
    rng = np.random.default_rng(0)
    return [encode(rng.integers(0, 255, (6, 5, 3), np.uint8), (40, 48)) for _ in range(6)]


@pytest.fixture(scope="session")
def batch(encoded):
    """These as `measure_parity` takes them, with labels."""
    import tensorflow as tf

    from pipelines.decode import decode_and_resize

    images = np.stack([decode_and_resize(tf.constant(data), tf.constant(1), SIZE) for data in encoded])
    labels = np.eye(len(CLASSES), dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
    return {
        "image": images,
        "encoded": np.array(encoded, object),
        "labels": labels,
        "weights": np.ones_like(labels),
    }


def build_model(top_n, seed=3, backbone=None, **options):
    import keras
    from little_network import little_network

    from mcar_tf.models.mcar import build_mcar

    keras.utils.set_random_seed(seed)
    model = build_mcar(len(CLASSES), backbone or little_network(), SIZE, top_n=top_n, **options, weights=None)
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([20 * kernel, bias])
    return model


def encode(pixels, size, format="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, format, **options)
    return file.getvalue()
