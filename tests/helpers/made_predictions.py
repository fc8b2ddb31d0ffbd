"""Predictions that no model made, for tests of what becomes of them."""

import numpy as np

from mcar_tf.evaluating.predictions import Predictions

CLASSES = ("cat", "dog", "car")


def random_predictions(images=11, classes=3):
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 2, (2, images, classes)).astype(np.float32)
    streams = rng.random((2, images, classes), np.float32)
    regions = np.zeros((images, 1, 4), np.float32), np.zeros((images, 1), np.int32), np.zeros((images, 1))
    ids = np.array([f"image-{i}" for i in range(images)])
    return Predictions(ids, labels, weights, *streams, np.maximum(*streams), *regions)
