"""Predictions that no model made, and evaluated runs of such, for tests of what becomes of them."""

from pathlib import Path

import numpy as np

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import count, summarize
from mcar_tf.reporting.evaluated_run import EvaluatedRun

CLASSES = ("cat", "dog", "car")


def random_predictions(images=11, classes=3):
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 2, (2, images, classes)).astype(np.float32)
    streams = rng.random((2, images, classes), np.float32)
    regions = (
        np.zeros((images, 1, 4), np.float32),
        np.zeros((images, 1), np.int32),
        np.zeros((images, 1), np.float32),
    )
    ids = np.array([f"image-{i}" for i in range(images)])
    return Predictions(ids, labels, weights, *streams, np.maximum(*streams), *regions)


def predictions_with(labels, probs, weights=None):
    """Predictions without regions, both of whose streams are one."""
    labels, probs = np.asarray(labels), np.asarray(probs, np.float32)
    images = len(labels)
    regions = np.zeros((images, 0, 4), np.float32), np.zeros((images, 0), np.int32), np.zeros((images, 0))
    weights = np.ones_like(labels) if weights is None else weights
    ids = np.array([f"image-{i}" for i in range(images)])
    return Predictions(ids, labels, weights, probs, probs, None, *regions[:2], regions[2].astype(np.float32))


def evaluated_run(labels, probs, weights=None, *, local=None, thresholds=0.6, boxes=None, box_classes=None):
    """An evaluated run as the report has it, with `probs` as its global stream, and as its local one by default."""
    predictions = predictions_with(labels, probs, weights)
    if local is not None:
        predictions.local_probs = np.asarray(local, np.float32)
    if boxes is not None:
        predictions.boxes, predictions.box_classes = np.asarray(boxes, np.float32), np.asarray(box_classes)
    counted = count(predictions, thresholds)
    return EvaluatedRun(
        name="run",
        folder=Path("runs/run"),
        config=FitConfig(top_n=4),
        classes=tuple(f"class-{c}" for c in range(predictions.num_classes)),
        split="test",
        predictions=predictions,
        thresholds=counted.thresholds,
        decided_by="as the test says",
        counted=counted,
        metrics=summarize(counted),
        history=[],
        localization=None,
        calibration=None,
    )
