"""Exact metrics of multi-label predictions, computed from labels and scores with NumPy only, in float64.

Shapes are the same everywhere (N images, C classes):

    labels:  (N, C), 1 where the class is in the image, else 0.
    scores:  (N, C), probabilities or logits: average precision uses only their order. Arguments called
             `probs` must lie in [0, 1].
    weights: (N, C), 1 where a label counts and 0 where it doesn't (difficult objects, unknown labels), or
             None: every label counts.

A class is left out of every mean over classes if no image that counts shows it, because then neither its
precision nor its recall means anything. Its own numbers are NaN, which callers should print as "no positives".
All results are fractions; the paper prints percent.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Any:
    """Average precision without interpolation: the mean of the precision at each positive.

    The precision at a positive is the share of positives among all images that score at least as high. So the
    order of images with equal scores does not matter, as in scikit-learn: no threshold can separate them.

    Args:
        labels: (N, C), or (N,) for one class.
        scores: like `labels`.
        weights: like `labels`, or None.

    Returns:
        (C,) float64, or a float for one class; NaN for a class without positives.

    Raises:
        ValueError: shapes differ, a score is NaN, or a label or weight is neither 0 nor 1.
    """
    both = average_precisions(labels, scores, weights)[0]
    return float(both[0]) if np.ndim(labels) == 1 else both


def average_precision_11_point(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Any:
    """VOC 2007's average precision: the mean, over recalls 0, 0.1 .. 1, of the best precision at that recall or more.

    Arguments, result and treatment of ties are as in `average_precision`.
    Source: the VOC 2007 development kit, `VOCevalcls.m`.
    """
    both = average_precisions(labels, scores, weights)[1]
    return float(both[0]) if np.ndim(labels) == 1 else both


def average_precisions(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Array, Array]:
    """`average_precision` and `average_precision_11_point`, (C,) each, with a single sort of the scores."""
    labels, scores, counts = _checked(labels, scores, weights)
    values = np.full((2, labels.shape[1]), np.nan)
    # Class by class, because different images may count for each; and because one column fits into the cache: this
    # is 12 times as fast as one argsort of the whole array, and makes no copies of it.
    for c in np.flatnonzero((labels & counts).any(axis=0)):
        ranking = _Ranking(labels[counts[:, c], c], scores[counts[:, c], c])
        values[:, c] = ranking.average_precision(), ranking.average_precision_11_point()
    return values[0], values[1]


def mean_average_precision(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """mAP: the mean of `average_precision` over the classes that have positives; NaN if none has."""
    return mean_over_classes(average_precision(labels, scores, weights))


def mean_over_classes(values: npt.ArrayLike) -> float:
    """The mean over the classes that have positives: NaN values are left out; NaN if all are."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def precision_recall_curve(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """Precision and recall of one class with each of its positives' scores as the threshold.

    Args:
        labels: (N,).
        scores: (N,).
        weights: (N,), or None.

    Returns:
        (precision, recall, threshold), each (T,) float64, by descending threshold. T counts the distinct
        scores of positives: no other threshold is worth choosing, for it would retrieve as many positives
        among more images.
    """
    labels, scores, counts = _checked(labels, scores, weights)
    if labels.shape[1] != 1:
        raise ValueError(f"A precision-recall curve is of one class: expected (N,). Received: {labels.shape}")
    labels, scores = labels[counts], scores[counts]
    threshold = np.unique(scores[labels])[::-1]
    relevant, retrieved = _Ranking(labels, scores).counts_at_or_above(threshold)
    return relevant / retrieved, relevant / max(labels.sum(), 1), threshold


def precision_recall_f1(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    threshold: npt.ArrayLike = 0.6,
    weights: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """OP, OR, OF1 over all decisions and CP, CR, CF1 as means over classes; `probs >= threshold` is a yes.

    Equation (10) of the paper. A class that is never predicted counts 0 in CP and nothing in OP.

    Args:
        labels: (N, C).
        probs: (N, C).
        threshold: one number, or one per class (C,). The default is the paper's.
        weights: (N, C), or None.

    Returns:
        The six numbers under their names. OP is 0 if nothing at all is predicted. Recalls and F1s are NaN if
        no image shows any class, and so is CP.
    """
    labels, probs, counts = _checked(labels, probs, weights)
    threshold = np.asarray(threshold, np.float64)
    if threshold.shape not in ((), (probs.shape[1],)) or np.isnan(threshold).any():
        raise ValueError(
            f"`threshold` must be one number or one for each of the {probs.shape[1]} classes."
            f" Received: {threshold.tolist()}"
        )
    return metrics_of_counts(*count_decisions(labels, probs >= threshold, counts))


def top_k_metrics(
    labels: npt.ArrayLike,
    probs: npt.ArrayLike,
    k: int = 3,
    min_prob: float | None = None,
    weights: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """OP .. CF1 as in `precision_recall_f1`, where each image is assigned its `k` most probable classes.

    Args:
        labels: (N, C).
        probs: (N, C). Among equal probabilities, the class that comes first is taken first.
        k: how many classes an image is assigned; all classes if there are no more than `k`.
        min_prob: assign no class below this probability (the authors' code: 0.6; the paper: None).
        weights: (N, C), or None. A class that doesn't count can still take one of the `k` places, but is not
            counted anywhere.
    """
    labels, probs, counts = _checked(labels, probs, weights)
    return metrics_of_counts(*count_decisions(labels, assign_top_k(probs, k, min_prob), counts))


def assign_top_k(probs: Array, k: int = 3, min_prob: float | None = None) -> Array:
    """Which classes each image is assigned, (N, C) bool. Arguments as for `top_k_metrics`."""
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: {k}")
    k = min(k, probs.shape[1])
    kth = np.partition(probs, -k, axis=1)[:, -k, None]
    above, equal = probs > kth, probs == kth
    assigned: Array = above | (equal & (np.cumsum(equal, axis=1) <= k - above.sum(axis=1, keepdims=True)))
    return assigned if min_prob is None else assigned & (probs >= min_prob)


def count_decisions(
    labels: npt.ArrayLike, decisions: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """M_c, M_p, M_g of equation (10), (C,) each.

    They count the images for which the class is rightly predicted, predicted at all, and labelled.
    """
    labels, decisions = np.asarray(labels, bool), np.asarray(decisions, bool)
    counts = np.True_ if weights is None else np.asarray(weights, bool)
    correct = (labels & decisions & counts).sum(axis=0)
    return correct, (decisions & counts).sum(axis=0), (labels & counts).sum(axis=0)


def count_false_claims(
    labels: npt.ArrayLike, decisions: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[Array, Array]:
    """How often each class is predicted without being in the image, for each class that is in the image.

    Args:
        labels: (N, C).
        decisions: (N, C), whether a class is predicted.
        weights: (N, C), or None.

    Returns:
        Two (C, C) integer arrays. Row a, column b: the number of images that show a but not b; in the first array
        only those where b is predicted, in the second all of them.
    """
    labels, decisions = np.asarray(labels, bool), np.asarray(decisions, bool)
    counts = np.ones_like(labels) if weights is None else np.asarray(weights, bool)
    # Matrix products of floats are fast, and exact up to 2**53 images.
    shown = (labels & counts).astype(np.float64).T
    absent = ~labels & counts
    return (shown @ (absent & decisions)).astype(int), (shown @ absent).astype(int)


def expected_calibration_error(
    labels: npt.ArrayLike, probs: npt.ArrayLike, weights: npt.ArrayLike | None = None, bins: int = 15
) -> float:
    """How far probabilities are from frequencies, over all pairs of image and class.

    The pairs are put into `bins` equal intervals of probability. The error is the mean, over the pairs, of the
    distance between their interval's mean probability and its share of positives (Guo et al., "On Calibration
    of Modern Neural Networks", ICML 2017, equation 3, for yes-or-no decisions). NaN if no pair counts.
    """
    return calibration_error(calibration_excess(labels, probs, weights, bins))


def calibration_excess(
    labels: npt.ArrayLike, probs: npt.ArrayLike, weights: npt.ArrayLike | None = None, bins: int = 15
) -> Array:
    """The sums that `expected_calibration_error` is computed from; they can be added up over parts of the pairs.

    Returns:
        (2, bins) float64: for each interval, the sum of probabilities minus the number of positives, and the number
        of pairs of image and class.
    """
    labels, probs, counts = _checked(labels, probs, weights)
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise ValueError(
            f"`probs` must lie in [0, 1]. Received values from {probs.min():g} to {probs.max():g}"
        )
    labels, probs = labels[counts], probs[counts]
    interval = np.minimum((probs * bins).astype(int), bins - 1)
    excess = np.bincount(interval, weights=probs - labels, minlength=bins)
    return np.stack([excess, np.bincount(interval, minlength=bins)])


def calibration_error(excess: Array) -> float:
    """The expected calibration error, from the sum of the arrays that `calibration_excess` returned."""
    total = excess[1].sum()
    return float(np.abs(excess[0]).sum() / total) if total else float("nan")


class _Ranking:
    """A ranking of images by their scores for one class; labels and scores are (N,), only of images that count."""

    def __init__(self, labels: Array, scores: Array) -> None:
        self.of_positives = scores[labels]
        self.positives, self.everything = np.sort(self.of_positives), np.sort(scores)

    def average_precision(self) -> float:
        relevant, retrieved = self.counts_at_or_above(self.of_positives)
        return float(np.mean(relevant / retrieved))

    def average_precision_11_point(self) -> float:
        relevant, retrieved = self.counts_at_or_above(self.positives[::-1])
        # The best precision at this recall or a higher one. Between two positives precision only falls.
        best = np.maximum.accumulate((relevant / retrieved)[::-1])[::-1]
        # The first positive with recall >= t / 10; compared as integers, because in floats 3 * 0.1 > 0.3.
        first = np.searchsorted(10 * relevant, np.arange(11) * len(relevant))
        return float(np.mean(best[first]))

    def counts_at_or_above(self, threshold: Array) -> tuple[Array, Array]:
        """For each threshold, how many positives and how many images in total score at least that much."""
        relevant = len(self.positives) - np.searchsorted(self.positives, threshold, side="left")
        retrieved = len(self.everything) - np.searchsorted(self.everything, threshold, side="left")
        return relevant, retrieved


def metrics_of_counts(correct: Array, predicted: Array, present: Array) -> dict[str, float]:
    """OP .. CF1, from the counts of each class that `count_decisions` returns."""
    known = present > 0
    op = float(correct.sum() / max(predicted.sum(), 1))
    overall = float(correct.sum() / present.sum()) if known.any() else float("nan")
    cp = mean_over_classes((correct / np.maximum(predicted, 1))[known])
    cr = mean_over_classes(correct[known] / present[known])
    return {"OP": op, "OR": overall, "OF1": f1(op, overall), "CP": cp, "CR": cr, "CF1": f1(cp, cr)}


def f1(precision: float, recall: float) -> float:
    """The harmonic mean; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall != 0 else 0.0


def _checked(
    labels: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Check the arguments; return bool labels, float64 scores and bool weights, all (N, C), from (N, C) or (N,)."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    weights = np.ones(labels.shape, bool) if weights is None else np.asarray(weights)
    if not labels.shape == scores.shape == weights.shape or labels.ndim not in (1, 2):
        raise ValueError(
            "Labels, scores and weights must have one shape, (N, C) or (N,)."
            f" Received: {labels.shape}, {scores.shape}, {weights.shape}"
        )
    for name, values in (("labels", labels), ("weights", weights)):
        if not ((values == 0) | (values == 1)).all():
            raise ValueError(f"The {name} must be 0 or 1. Received, among others: {_other_value(values)}")
    if np.isnan(scores).any():
        row = np.argwhere(np.isnan(scores))[0].tolist()
        raise ValueError(
            f"The scores must be numbers. Received: {int(np.isnan(scores).sum())} NaN, the first at {row};"
            " the model that made them has diverged or was never trained."
        )
    arrays = labels.astype(bool), scores, weights.astype(bool)
    return arrays if labels.ndim == 2 else tuple(array[:, None] for array in arrays)  # type: ignore[return-value]


def _other_value(values: Array) -> Any:
    return values[(values != 0) & (values != 1)].flat[0]
