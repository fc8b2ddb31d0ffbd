"""Measures how good predictions are: over all classes, for each class, and of regions. Loads no TensorFlow."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.evaluating.columns import STREAMS, StreamNumbers, measure_stream
from mcar_tf.evaluating.predictions import Predictions

Array = npt.NDArray[Any]

CALIBRATION_BINS = 15


class Counted(NamedTuple):
    """The counts that all measures of a set of predictions are computed from.

    Attributes:
        images: N.
        streams: name of a stream -> the numbers that its measures are computed from.
        top3: name of a stream -> (3, C), the counts of decisions when each image is assigned three classes.
        thresholds: (C,), the thresholds of the decisions.
    """

    images: int
    streams: dict[str, StreamNumbers]
    top3: dict[str, Array]
    thresholds: Array


def count(
    predictions: Predictions, threshold: npt.ArrayLike = 0.6, top_3_min_prob: float | None = None
) -> Counted:
    """Make the counts in one pass, some classes at a time. Arguments as for `evaluate_predictions`."""
    classes = predictions.num_classes
    thresholds = np.broadcast_to(np.asarray(threshold, np.float64), classes)
    precisions = {stream: np.full((2, classes), np.nan) for stream in STREAMS}
    decisions, top3 = ({stream: np.zeros((3, classes), int) for stream in STREAMS} for _ in range(2))
    excess = dict.fromkeys(STREAMS, np.zeros((2, CALIBRATION_BINS)))
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        for stream in STREAMS:
            # Compare in double precision: rounded to single precision, a threshold of 0.6 would be another number.
            probs = predictions.stream(stream, classes=block).astype(np.float64)
            precisions[stream][:, block] = metrics.average_precisions(labels, probs, weights)
            decisions[stream][:, block] = metrics.count_decisions(labels, probs >= thresholds[block], weights)
            found = metrics.calibration_excess(labels, probs, weights, CALIBRATION_BINS)
            excess[stream] = excess[stream] + found
    for rows in predictions.row_blocks():
        labels, weights = predictions.truth(rows)
        for stream in STREAMS:
            probs = predictions.stream(stream, rows).astype(np.float64)
            assigned = metrics.assign_top_k(probs, 3, top_3_min_prob)
            top3[stream] += np.stack(metrics.count_decisions(labels, assigned, weights))
    streams = {
        stream: StreamNumbers(ap, ap_11_point, decisions[stream], metrics.calibration_error(excess[stream]))
        for stream, (ap, ap_11_point) in precisions.items()
    }
    return Counted(len(predictions), streams, top3, thresholds)


def evaluate_predictions(
    predictions: Predictions,
    threshold: npt.ArrayLike = 0.6,
    top_3_min_prob: float | None = None,
) -> dict[str, Any]:
    """All measures of the paper's tables, for the global stream, the local stream and both fused.

    Args:
        predictions: predictions on a labelled set.
        threshold: threshold of the decisions over all labels; one number, or one per class (C,).
        top_3_min_prob: don't assign a top-three class below this probability (the authors' code: 0.6).

    Returns:
        What `summarize` returns.
    """
    return summarize(count(predictions, threshold, top_3_min_prob))


def summarize(counted: Counted) -> dict[str, Any]:
    """All measures of all streams.

    Returns:
        `images`, `classes_without_positives` (their number; they are left out of all means), and for each of
        `global`, `local` and `fused` all of `mcar_tf.evaluating.columns.MEASURES`, and under `top3` those of
        decisions. Measures are fractions, or NaN if unknown because no image shows any class.
    """
    _, _, present = counted.streams["fused"].decisions
    return {
        "images": counted.images,
        "classes_without_positives": int((present == 0).sum()),
        **{
            stream: measure_stream(numbers, counted.top3[stream])
            for stream, numbers in counted.streams.items()
        },
    }


def class_rows(counted: Counted, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class: positives, AP in each stream; 11-point AP, precision, recall and F1 of the fused stream.

    Numbers are NaN if a class has no positives; precision is 0 if it is never predicted.
    """
    fused = counted.streams["fused"]
    correct, predicted, present = fused.decisions
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
                **{f"AP_{s}": float(found.average_precision[c]) for s, found in counted.streams.items()},
                "AP_11_point": float(fused.average_precision_11_point[c]),
                "threshold": float(counted.thresholds[c]),
                "precision": float(precision),
                "recall": float(recall),
                "F1": metrics.f1(float(precision), float(recall)),
            }
        )
    return rows


def count_confusions(predictions: Predictions, thresholds: Array, most: int) -> tuple[Array, Array, Array]:
    """How often each class is falsely claimed in pictures of each other class, for classes with many false claims.

    Args:
        predictions: predictions on the set.
        thresholds: (C,).
        most: largest number of classes, K; if there are no more than these, all are taken.

    Returns:
        The K classes, ascending, and for them the two (K, K) arrays of `mcar_tf.metrics.count_false_claims`.
    """
    claimed, beside = np.zeros((2, predictions.num_classes), int)
    for rows in predictions.row_blocks():
        labels, weights = predictions.truth(rows)
        wrong = (predictions.stream("fused", rows) >= thresholds) & ~labels & weights
        claimed += wrong.sum(axis=0)
        beside += wrong.sum(axis=1) @ (labels & weights)
    # Half of the classes are those most often falsely claimed, half those shown where others are falsely claimed.
    leading = [np.argsort(-counts, kind="stable")[: max(1, most // 2)] for counts in (claimed, beside)]
    chosen = np.unique(leading) if predictions.num_classes > most else np.arange(predictions.num_classes)
    pairs = [np.concatenate(parts, axis=1) for parts in zip(*_of_classes(predictions, chosen), strict=True)]
    labels, weights, probs = pairs
    return chosen, *metrics.count_false_claims(labels, probs >= thresholds[chosen], weights)


def _of_classes(predictions: Predictions, chosen: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Labels, weights and fused probabilities of the chosen classes, one class after the other."""
    for c in chosen:
        column = slice(int(c), int(c) + 1)
        yield (*predictions.truth(classes=column), predictions.stream("fused", classes=column))


def evaluate_localization(
    predictions: Predictions, objects: Mapping[str, tuple[Array, Array]]
) -> dict[str, Any]:
    """How well regions find objects, although the model never trained on boxes.

    `pointing_accuracy`: of the regions whose class is in the image, the share whose centre lies in an object of that
    class. This is the pointing game (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016),
    but with the centre of the box, which every exported form of the model gives, in place of the map's maximum.
    `objects_covered_30` and `_50`: of all objects, the share that has an IoU of at least 0.3 or 0.5 with the region
    of their class. An image has at most one region per class, and only for `top_n` classes, so these can't reach 1
    if there are several objects of a class. `whole_image` holds the same numbers for regions that are the whole
    image, as a baseline.

    Args:
        predictions: predictions on the set.
        objects: id -> (boxes (n, 4), classes (n,)) of the objects in the image.

    Returns:
        The numbers above, and the counts that they are shares of: `regions` (those whose class is in the image) and
        `objects`. Shares of nothing are NaN.
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


def _iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box (4,) with others (n, 4) -> (n,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return common / np.maximum(areas - common, np.finfo(float).tiny)


def _contains(boxes: Array, point: Array) -> bool:
    """Whether any of the boxes (n, 4) contains the point (y, x)."""
    return bool(((boxes[:, :2] <= point) & (point <= boxes[:, 2:])).all(axis=1).any())
