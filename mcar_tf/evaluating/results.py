"""Predictions in, how good they are out: over all classes, of each class, of regions. Loads no TensorFlow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.evaluating.columns import STREAMS, StreamNumbers, measure_stream
from mcar_tf.evaluating.predictions import Predictions

Array = npt.NDArray[Any]


def evaluate_predictions(
    predictions: Predictions,
    threshold: npt.ArrayLike = 0.6,
    top_3_min_prob: float | None = None,
) -> dict[str, Any]:
    """Everything that the paper's tables hold, for the global stream, the local stream and both fused.

    Args:
        predictions: of a labelled set.
        threshold: of the decisions over all labels; one number, or one per class (C,).
        top_3_min_prob: assign none of the top three below this (the authors' code: 0.6).

    Returns:
        `images`, `classes_without_positives` (how many; left out of all means), and for each of `global`,
        `local` and `fused`: `mAP`, `mAP_11_point`, `OP OR OF1 CP CR CF1`, `top3` (the same six), `ECE`.
        Fractions; NaN for what is unknown because no image shows any class.
    """
    labels, weights = predictions.labels, predictions.weights
    shown = ((labels > 0) & (weights > 0)).any(axis=0)
    result: dict[str, Any] = {
        "images": len(predictions),
        "classes_without_positives": int((~shown).sum()),
    }
    for stream, field in STREAMS.items():
        probs = np.asarray(getattr(predictions, field), np.float64)
        numbers = StreamNumbers(
            metrics.average_precision(labels, probs, weights),
            metrics.average_precision_11_point(labels, probs, weights),
            metrics.count_decisions(labels, probs >= np.asarray(threshold, np.float64), weights),
            metrics.expected_calibration_error(labels, probs, weights),
        )
        assigned = metrics.assign_top_k(probs, 3, top_3_min_prob)
        result[stream] = measure_stream(numbers, metrics.count_decisions(labels, assigned, weights))
    return result


def evaluate_classes(
    predictions: Predictions, classes: Sequence[str], threshold: npt.ArrayLike = 0.6
) -> list[dict[str, Any]]:
    """A row a class: its positives, AP in each stream and by 11 points, precision, recall and F1 of the fused one.

    NaN where a class has no positives; precision 0 where it is never predicted.
    """
    labels, weights = predictions.labels, predictions.weights
    aps = {s: metrics.average_precision(labels, getattr(predictions, f), weights) for s, f in STREAMS.items()}
    eleven_point = metrics.average_precision_11_point(labels, predictions.probs, weights)
    threshold = np.broadcast_to(np.asarray(threshold, np.float64), len(classes))
    correct, predicted, present = metrics.count_decisions(labels, predictions.probs >= threshold, weights)
    rows = []
    for c, name in enumerate(classes):
        known = present[c] > 0
        precision = correct[c] / max(predicted[c], 1) if known else math.nan
        recall = correct[c] / present[c] if known else math.nan
        rows.append(
            {
                "class": name,
                "positives": int(present[c]),
                "predicted": int(predicted[c]),
                **{f"AP_{stream}": float(ap[c]) for stream, ap in aps.items()},
                "AP_11_point": float(eleven_point[c]),
                "threshold": float(threshold[c]),
                "precision": float(precision),
                "recall": float(recall),
                "F1": metrics.f1(float(precision), float(recall)),
            }
        )
    return rows


def evaluate_localization(
    predictions: Predictions, objects: Mapping[str, tuple[Array, Array]]
) -> dict[str, Any]:
    """How well regions find objects, though no box was ever trained on.

    `pointing_accuracy` is the share, among the regions whose class is in the image, of those whose centre
    lies in an object of that class: the pointing game (Zhang et al., "Top-down Neural Attention by Excitation
    Backprop", ECCV 2016), played with what every exported form of the model gives, its boxes, in place of the
    map's maximum. `objects_covered_30` and `_50` are the shares, among all objects, of those that have an IoU
    of 0.3 and 0.5 at least with the region of their class. An image has one region a class at most, and only
    for `top_n` classes, so these can't reach 1 where there are several objects of a class. `whole_image`
    holds the same numbers for regions that are the whole image: what pointing at nothing gives.

    Args:
        predictions: of the set.
        objects: id -> (boxes (n, 4), classes (n,)) of the objects in the image.

    Returns:
        The numbers above, `regions` (those whose class is in the image) and `objects` they are shares of;
        shares are NaN where there is nothing to share.
    """
    counts = {"region": np.zeros(3, int), "whole_image": np.zeros(3, int)}
    regions = total = 0
    for row, identifier in enumerate(predictions.ids):
        boxes, classes = objects[str(identifier)]
        total += len(classes)
        for box, c in zip(predictions.boxes[row], predictions.box_classes[row], strict=True):
            of_class = boxes[classes == c]
            if not len(of_class):
                continue
            regions += 1
            for name, region in (("region", box), ("whole_image", np.array([0.0, 0.0, 1.0, 1.0]))):
                overlaps = _iou(region, of_class)
                pointed = _contains(of_class, (region[:2] + region[2:]) / 2)
                counts[name] += [pointed, (overlaps >= 0.3).sum(), (overlaps >= 0.5).sum()]

    def shares(hits: Array) -> dict[str, float]:
        return {
            "pointing_accuracy": hits[0] / regions if regions else math.nan,
            "objects_covered_30": hits[1] / total if total else math.nan,
            "objects_covered_50": hits[2] / total if total else math.nan,
        }

    return {
        **shares(counts["region"]),
        "whole_image": shares(counts["whole_image"]),
        "regions": regions,
        "objects": total,
    }


def to_json(value: Any) -> Any:
    """The same without NaN, which JSON has no word for: unknown numbers become None."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box (4,) with others (n, 4) -> (n,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return common / np.maximum(areas - common, np.finfo(float).tiny)


def _contains(boxes: Array, point: Array) -> bool:
    """Whether any of the boxes (n, 4) contains the point (y, x)."""
    return bool(((boxes[:, :2] <= point) & (point <= boxes[:, 2:])).all(axis=1).any())
