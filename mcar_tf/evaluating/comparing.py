"""Predictions of several models in, whether they can be compared and by how much they differ out. No TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mcar_tf import metrics
from mcar_tf.evaluating.predictions import Predictions

Array = npt.NDArray[Any]


def check_comparable(found: Mapping[Path, tuple[Predictions, Sequence[str]]]) -> None:
    """Refuse predictions of other classes, pictures or labels than the first ones.

    Args:
        found: folder -> the predictions in it, and the C class names.

    Raises:
        ValueError: naming the folder and in what it differs.
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
    labels: Array, weights: Array, probs: Array, resamples: int, seed: int = 0
) -> tuple[Array, Array]:
    """The mAP of several models on the images, and on images drawn with replacement, the same draws for all models.

    Args:
        labels: (N, C).
        weights: (N, C), 0 where a label doesn't count.
        probs: (M, N, C), of M models.
        resamples: draws, R, of N images each.
        seed: of the draws.

    Returns:
        mAP (M,) and (M, R), in [0, 1].
    """
    values = np.array([metrics.mean_average_precision(labels, p, weights) for p in probs])
    rng = np.random.default_rng(seed)
    resampled = np.empty((len(probs), resamples))
    for r in tqdm(range(resamples), desc="resampling", leave=False, disable=None):
        rows = rng.integers(0, len(labels), len(labels))
        for model, found in enumerate(probs):
            resampled[model, r] = metrics.mean_average_precision(labels[rows], found[rows], weights[rows])
    return values, resampled
