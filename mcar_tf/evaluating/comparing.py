"""Compares the predictions of several models: whether they can be compared, and how they differ. No TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mcar_tf.evaluating.predictions import Predictions

Array = npt.NDArray[Any]


def check_comparable(found: Mapping[Path, tuple[Predictions, Sequence[str]]]) -> None:
    """Refuse predictions of other classes, pictures or labels than the first ones.

    Args:
        found: folder -> the predictions in it, and the C class names.

    Raises:
        ValueError: predictions differ in this way; the error names the folder and the difference.
    """
    (first_folder, (first, first_classes)), *others = found.items()
    for folder, (predictions, classes) in others:
        same = {"classes": tuple(classes) == tuple(first_classes)} | {
            what: np.array_equal(getattr(predictions, name), getattr(first, name))
            for what, name in (("pictures", "ids"), ("labels", "labels"), ("labels that count", "weights"))
        }
        if differing := [what for what, equal in same.items() if not equal]:
            raise ValueError(
                f"{folder} was evaluated on other {differing[0]} than {first_folder}: they can't be compared."
            )


def resample_map(
    models: Sequence[tuple[Predictions, str]], resamples: int, seed: int = 0
) -> tuple[Array, Array]:
    """The mAP of several models on the images and on images drawn with replacement, with the same draws for all.

    Args:
        models: predictions of M models for the same images, each with the name of the stream to use.
        resamples: number of resamples, R, of N images each.
        seed: seed for drawing the images.

    Returns:
        mAP (M,) and (M, R), in [0, 1].
    """
    first, count = models[0][0], len(models[0][0])
    rng = np.random.default_rng(seed)
    # How often each image is drawn: (N, 1 + R). The first column holds the original images, each once.
    drawn = np.ones((count, 1 + resamples), np.uint16)
    for draw in range(1, 1 + resamples):
        drawn[:, draw] = np.bincount(rng.integers(0, count, count), minlength=count)
    sums, known = np.zeros((2, len(models), 1 + resamples))
    bar = tqdm(total=first.num_classes, desc="resampling", unit=" classes", leave=False, disable=None)
    with bar:
        for block in first.class_blocks():
            labels, weights = first.truth(classes=block)
            probs = [predictions.stream(stream, classes=block) for predictions, stream in models]
            for c in range(labels.shape[1]):
                counts = weights[:, c]
                for model, scores in enumerate(probs):
                    ap = _average_precisions(labels[counts, c], scores[counts, c], drawn[counts])
                    sums[model] += np.nan_to_num(ap)
                    known[model] += ~np.isnan(ap)
                bar.update()
    with np.errstate(invalid="ignore"):
        means = sums / known  # NaN where no class has a positive
    return means[:, 0], means[:, 1:]


def _average_precisions(labels: Array, scores: Array, drawn: Array) -> Array:
    """Average precision of one class, as `mcar_tf.metrics` defines it, on each of R resamples of the images.

    Args:
        labels: (n,) bool.
        scores: (n,).
        drawn: (n, R), how often each image is in each resample.

    Returns:
        (R,); NaN for a resample without positives.
    """
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    positives = np.flatnonzero(labels)
    if not positives.size:
        return np.full(drawn.shape[1], np.nan)
    # Images with equal scores are retrieved together: `ends` holds where each score of a positive ends in the order.
    ends, first = np.unique(np.searchsorted(-scores, -scores[positives], side="right"), return_index=True)
    retrieved = np.add.reduceat(drawn[order[: ends[-1]]], [0, *ends[:-1]], axis=0, dtype=np.int64).cumsum(
        axis=0
    )
    found = np.add.reduceat(drawn[order[positives]], first, axis=0, dtype=np.int64)
    total = found.sum(axis=0)
    precision = found.cumsum(axis=0) / np.maximum(retrieved, 1)
    return np.where(total > 0, (found * precision).sum(axis=0) / np.maximum(total, 1), np.nan)
