"""A model and a dataset in, what it predicted and how good that is out: for fit, evaluate, calibrate and the report.

Letters: N images, C classes, R regions an image, S px a side.
"""

import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from mcar_tf import metrics
from mcar_tf.evaluating.columns import STREAMS, StreamNumbers, measure_stream
from mcar_tf.reporting.drawing import draw_regions, enlarge, make_panel, select_regions
from pipelines.decode import decode, turn_upright
from pipelines.files import written_whole
from pipelines.input_pipeline import read_samples
from pipelines.manifest import Part

Array = npt.NDArray[Any]

OUTPUTS = ("global_probs", "local_probs", "probs", "boxes", "box_classes", "box_probs")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model said about every image of a set, beside what is true; rows in the dataset's order.

    Attributes:
        ids: (N,) str.
        labels: (N, C) float32, 0 or 1.
        weights: (N, C) float32, 0 where a label doesn't count, else 1.
        global_probs, local_probs, probs: (N, C) float32.
        boxes: (N, R, 4) float32, ymin xmin ymax xmax as fractions of the image.
        box_classes: (N, R) int32.
        box_probs: (N, R) float32.
    """

    ids: Array
    labels: Array
    weights: Array
    global_probs: Array
    local_probs: Array
    probs: Array
    boxes: Array
    box_classes: Array
    box_probs: Array

    def __len__(self) -> int:
        return len(self.ids)


def predict_dataset(
    model: keras.Model, dataset: tf.data.Dataset, *, flip: bool = False, images: int | None = None
) -> Predictions:
    """Run a model over a dataset once; every image counts once, on however many replicas the model lies.

    Args:
        model: gives the outputs of `mcar_tf.models.mcar.MCAR`.
        dataset: of `pipelines.input_pipeline.make_eval_dataset`; its last batch may be partial.
        flip: average each stream's probabilities over the image and its mirror image, then fuse. Regions stay
            those of the image.
        images: how many to expect, for a progress bar; None: no bar.

    Raises:
        ValueError: an empty dataset, or a model whose probabilities are no numbers.
    """
    strategy = model.distribute_strategy
    dataset = strategy.experimental_distribute_dataset(dataset)
    predict = _compiled_predict(model, dataset.element_spec["image"], flip)
    # On a pipe or in a log a line every 30 s instead of ten updates a second.
    interval = 0.1 if sys.stderr.isatty() else 30
    bar = tqdm(
        total=images,
        desc="predicting",
        unit=" images",
        disable=images is None,
        mininterval=interval,
        leave=False,
    )
    batches: list[dict[str, Array]] = []
    with bar:
        for batch in dataset:
            outputs = predict(batch["image"])
            found = {name: outputs[name] for name in OUTPUTS}
            found |= {name: batch[name] for name in ("labels", "weights", "id")}
            batches.append({name: _collect(strategy, value) for name, value in found.items()})
            bar.update(len(batches[-1]["id"]))
    if not batches:
        raise ValueError("The dataset holds no images: there is nothing to predict.")
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    ids = np.array([identifier.decode() for identifier in whole.pop("id")])
    check_numbers(whole, ids)
    return Predictions(ids=ids, **whole)


def check_numbers(outputs: Mapping[str, Array], ids: Sequence[str] | Array) -> None:
    """Refuse probabilities that are NaN: a comparison with a threshold would make a "no" of each.

    Args:
        outputs: of the model, for N images: `global_probs` and `local_probs`, (N, C) each.
        ids: what to call the images.

    Raises:
        ValueError: naming the first image.
    """
    numbers = np.concatenate([outputs["global_probs"], outputs["local_probs"]], axis=1)
    wrong: Array = np.isnan(numbers).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"The model's probabilities are no numbers for {wrong.sum()} of {len(wrong)} images, the first of them"
            f" {ids[int(wrong.argmax())]}: its training has diverged. Train again with a lower --learning-rate."
        )


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


def draw_examples(
    files: Sequence[Path | Part], predictions: Predictions, classes: Sequence[str], count: int = 12
) -> Array:
    """The first pictures of a set side by side, upright and undistorted, with the regions worth showing (Fig. 6).

    Args:
        files: of the set.
        predictions: of the set.
        classes: the C names.
        count: how many pictures, at most.

    Returns:
        One (H, W, 3) uint8 image.
    """
    rows = {str(identifier): row for row, identifier in enumerate(predictions.ids)}
    drawn = []
    for sample, picture in itertools.islice(read_samples(files), count):
        pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
        outputs = {name: getattr(predictions, name)[rows[sample.id]] for name in OUTPUTS}
        regions = select_regions(outputs, classes)
        boxes, titles = [region.box for region in regions], [region.title for region in regions]
        drawn.append(draw_regions(enlarge(pixels.numpy()), boxes, titles))
    return make_panel(drawn, columns=4)


def to_json(value: Any) -> Any:
    """The same without NaN, which JSON has no word for: unknown numbers become None."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_predictions(path: Path, predictions: Predictions, classes: Sequence[str], split: str) -> None:
    """Write `predictions.npz`, whole or not at all: every field of `Predictions`, `classes` and `split`."""
    fields = {f.name: getattr(predictions, f.name) for f in dataclasses.fields(Predictions)}
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, classes=np.array(classes), split=np.array(split), **fields)


def read_predictions(path: Path) -> tuple[Predictions, tuple[str, ...], str]:
    """Predictions, class names and split of a file that `write_predictions` wrote."""
    with np.load(path) as file:
        fields = {f.name: file[f.name] for f in dataclasses.fields(Predictions)}
        return Predictions(**fields), tuple(map(str, file["classes"])), str(file["split"])


@functools.lru_cache(maxsize=2)  # fit evaluates after every epoch: one trace for all of them
def _compiled_predict(model: keras.Model, images_spec: tf.TypeSpec, flip: bool) -> Callable[[Any], Any]:
    """The model on a distributed batch, by one graph for batches of any size, the last one too."""

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(images, training=False)
        return _average_streams(outputs, model(images[:, :, ::-1], training=False)) if flip else outputs

    def predict_share(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A replica may get nothing of the last batch, which not every op can do: a black image stands in.
        size = tf.shape(images)[0]
        black = tf.zeros([tf.maximum(1 - size, 0), *images.shape[1:]])
        return {name: value[:size] for name, value in predict(tf.concat([images, black], axis=0)).items()}

    strategy = model.distribute_strategy
    step = predict if strategy.num_replicas_in_sync == 1 else predict_share
    return tf.function(lambda images: strategy.run(step, args=(images,)), input_signature=[images_spec])


def _average_streams(outputs: dict[str, tf.Tensor], mirrored: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    averaged = {name: (outputs[name] + mirrored[name]) / 2 for name in ("global_probs", "local_probs")}
    return outputs | averaged | {"probs": tf.maximum(averaged["global_probs"], averaged["local_probs"])}


def _collect(strategy: tf.distribute.Strategy, value: Any) -> Array:
    """The replicas' shares of a batch, in the batch's order."""
    return np.concatenate([share.numpy() for share in strategy.experimental_local_results(value)])


def _iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box (4,) with others (n, 4) -> (n,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return common / np.maximum(areas - common, np.finfo(float).tiny)


def _contains(boxes: Array, point: Array) -> bool:
    """Whether any of the boxes (n, 4) contains the point (y, x)."""
    return bool(((boxes[:, :2] <= point) & (point <= boxes[:, 2:])).all(axis=1).any())
