"""Chooses a decision threshold for each class, and a temperature, from predictions on a validation split."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.evaluating import columns
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.results import CALIBRATION_BINS
from mcar_tf.evaluating.tables import MOST_CLASSES, most_positives
from pipelines.words import percent, printable

Array = npt.NDArray[Any]

RESAMPLES = 100  # how often images are resampled for the intervals
MOST_PAIRS = 4_000_000  # largest number of pairs of image and class that the temperature is fitted to
LARGEST_LOGIT, LOGIT_STEP = 16, 1 / 128  # range and step of the search for the overall threshold


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The chosen thresholds.

    Attributes:
        thresholds: (C,) float64, for fused probabilities as the model gives them.
        intervals: (C, 2), the interval that holds 90 % of the thresholds chosen on images drawn with replacement; NaN
            for a class that keeps the default.
        positives: (C,), number of images that show the class.
        overall: the best threshold for all classes together.
        reasons: class index -> why its threshold is not what was asked for.
    """

    thresholds: Array
    intervals: Array
    positives: Array
    overall: float
    reasons: dict[int, str]


def choose_thresholds(
    predictions: Predictions,
    *,
    min_precision: float | None = None,
    min_positives: int = 5,
    prior_positives: float = 5,
    default_threshold: float = 0.6,
    seed: int = 0,
) -> Calibration:
    """Choose the decision threshold of each class.

    The fewer positives a class has, the more its best threshold depends on chance. So a class gets a weighted mean,
    taken of logits, of two thresholds: its own best one, whose weight is its number of positives, and the best one
    for all classes together, whose weight is `prior_positives`. By default, the class's own threshold counts half
    with 5 positives and 99 % with 500. If a precision is asked for, the other classes can only raise a threshold.

    Args:
        predictions: predictions on the split.
        min_precision: choose the highest recall at this precision or more; None for the highest F1.
        min_positives: a class that fewer images show keeps the default.
        prior_positives: weight of the threshold of all classes together, as a number of positives; 0 to use only each
            class's own threshold.
        default_threshold: the threshold of classes that keep the default.
        seed: seed for the images that are drawn for the intervals.
    """
    count, classes = len(predictions), predictions.num_classes
    overall = _overall_threshold(predictions, min_precision)
    chosen, intervals = np.full(classes, default_threshold), np.full((classes, 2), np.nan)
    positives, reasons = np.zeros(classes, int), {}
    rng = np.random.default_rng(seed)
    # How often each image is drawn: (N, 1 + RESAMPLES). The first column holds the original images, each once.
    drawn = np.ones((count, 1 + RESAMPLES), np.uint16)
    drawn[:, 1:] = np.stack(
        [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(RESAMPLES)], axis=1
    )
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        probs = predictions.stream("fused", classes=block).astype(np.float64)
        for i, c in enumerate(range(classes)[block]):
            counts = weights[:, i]
            positives[c] = labels[counts, i].sum()
            if positives[c] < min_positives:
                reasons[c] = f"only {positives[c]} of {min_positives} positives"
                continue
            own, best_precision = _best_thresholds(
                labels[counts, i], probs[counts, i], drawn[counts], min_precision
            )
            if min_precision is not None and best_precision < min_precision:
                reasons[c] = (
                    f"no threshold has precision {min_precision:g}; the best has {best_precision:.2f}"
                )
            share = positives[c] / (positives[c] + prior_positives)
            mixed = _sigmoid(share * _logits(own) + (1 - share) * _logits(np.array(overall)))
            if share == 1:
                mixed = own  # without the rounding errors of the mean
            elif min_precision is not None:
                mixed = np.maximum(mixed, own)  # so that the mean does not cost the class its precision
            chosen[c] = mixed[0]
            intervals[c] = np.nanpercentile(mixed[1:], [5, 95])
    return Calibration(chosen, intervals, positives, overall, reasons)


def _best_thresholds(
    labels: Array, probs: Array, drawn: Array, min_precision: float | None
) -> tuple[Array, float]:
    """The best threshold of a class on each of R resamples of the images.

    Args:
        labels: (n,) bool, at least one positive.
        probs: (n,).
        drawn: (n, R), how often each image is in each resample; in the first one, each image is there once.
        min_precision: as for `choose_thresholds`.

    Returns:
        (R,) thresholds, NaN for a resample without positives, and the best precision in the first resample.
    """
    order = np.argsort(-probs, kind="stable")
    labels, probs = labels[order], probs[order]
    positives = np.flatnonzero(labels)
    # Only the probabilities of positives are worth choosing as thresholds. A threshold halfway between one of them
    # and the next lower probability makes the same decisions, and keeps a distance to both.
    ends, first = np.unique(np.searchsorted(-probs, -probs[positives], side="right"), return_index=True)
    below = np.append(probs, probs[-1])[ends]
    candidates = np.where(ends < len(probs), (probs[ends - 1] + below) / 2, probs[ends - 1])
    retrieved = np.add.reduceat(drawn[order[: ends[-1]]], [0, *ends[:-1]], axis=0, dtype=np.int64).cumsum(
        axis=0
    )
    relevant = np.add.reduceat(drawn[order[positives]], first, axis=0, dtype=np.int64).cumsum(axis=0)
    best, precision = _best(relevant, retrieved, min_precision)
    return np.where(relevant[-1] > 0, candidates[best], np.nan), float(precision[:, 0].max())


def _best(relevant: Array, retrieved: Array, min_precision: float | None) -> tuple[Array, Array]:
    """Indices (R,) of the best of T descending thresholds, from counts (T, R); and their precisions (T, R)."""
    precision = relevant / np.maximum(retrieved, 1)
    if min_precision is None:
        return np.argmax(2 * relevant / np.maximum(retrieved + relevant[-1], 1), axis=0), precision
    reached = precision >= min_precision
    last = len(reached) - 1 - np.argmax(reached[::-1], axis=0)  # the lowest threshold has the highest recall
    return np.where(reached.any(axis=0), last, np.argmax(precision, axis=0)), precision


def _overall_threshold(predictions: Predictions, min_precision: float | None) -> float:
    """The best threshold for all pairs of image and class together; its logit is a multiple of `LOGIT_STEP`."""
    steps = int(2 * LARGEST_LOGIT / LOGIT_STEP) + 1
    histogram = np.zeros((2, steps), int)  # counts of positives and of all pairs, by ascending logit
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        logits = _logits(predictions.stream("fused", classes=block))
        step = np.floor((logits + LARGEST_LOGIT) / LOGIT_STEP).astype(int).clip(0, steps - 1)
        for row, which in zip(histogram, (labels & weights, weights), strict=True):
            row += np.bincount(step[which], minlength=steps)
    relevant, retrieved = histogram[:, ::-1].cumsum(axis=1)[..., None]
    (best,), _ = _best(relevant, retrieved, min_precision)
    return float(_sigmoid(np.array((steps - 1 - best) * LOGIT_STEP - LARGEST_LOGIT)))


def fit_temperature(predictions: Predictions, seed: int = 0) -> float:
    """The temperature T for which sigmoid(logit / T) is most likely: one number for all classes.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, for yes-or-no decisions.
    It changes no ranking and, if thresholds are converted in the same way, no decision.

    Args:
        predictions: predictions on the split.
        seed: seed for choosing the pairs of image and class to fit to, if there are more than `MOST_PAIRS`.
    """
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(seed)
    share = MOST_PAIRS / max(1, len(predictions) * predictions.num_classes)
    parts = []
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        if share < 1:
            weights &= rng.random(weights.shape, np.float32) < share
        logits = _logits(predictions.stream("fused", classes=block)[weights])
        parts.append((2.0 * labels[weights] - 1) * logits)
    agreeing = np.concatenate(parts)

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.logaddexp(0, -agreeing / np.exp(log_temperature)).mean())

    # For separable or constant probabilities the optimum is zero or infinity: so T is limited to 0.05 to 20.
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def apply_temperature(probs: Array, temperature: float) -> Array:
    """The calibrated probabilities, sigmoid(logit / T), float64."""
    return _sigmoid(_logits(probs) / temperature)


def summarize_calibration(
    classes: Sequence[str],
    predictions: Predictions,
    calibration: Calibration,
    temperature: float,
    default_threshold: float,
) -> dict[str, Any]:
    """The chosen thresholds and temperature, and what they change; this becomes a part of `thresholds.json`."""
    before, ece_before, _ = _decide(predictions, np.full(len(classes), default_threshold), None)
    after, ece_after, counts = _decide(predictions, calibration.thresholds, temperature)
    correct, predicted, _ = counts
    known = np.flatnonzero(~np.isnan(calibration.intervals[:, 0]))
    return {
        "images": len(predictions),
        "thresholds": dict(zip(classes, calibration.thresholds.tolist(), strict=True)),
        "intervals": {classes[c]: calibration.intervals[c].tolist() for c in map(int, known)},
        "positives": dict(zip(classes, calibration.positives.tolist(), strict=True)),
        "predicted": dict(zip(classes, predicted.tolist(), strict=True)),
        "correct": dict(zip(classes, correct.tolist(), strict=True)),
        "overall_threshold": calibration.overall,
        "not_as_wanted": {classes[c]: reason for c, reason in calibration.reasons.items()},
        "temperature": temperature,
        "before": before | {"ECE": ece_before},
        "after": after | {"ECE": ece_after},
    }


def _decide(
    predictions: Predictions, thresholds: Array, temperature: float | None
) -> tuple[dict[str, float], float, Array]:
    """OP .. CF1 and counts of decisions (3, C) with these thresholds; the calibration error at this temperature.

    A temperature of None leaves the probabilities as they are.
    """
    counts, excess = np.zeros((3, predictions.num_classes), int), np.zeros((2, CALIBRATION_BINS))
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        probs = predictions.stream("fused", classes=block).astype(np.float64)
        counts[:, block] = metrics.count_decisions(labels, probs >= thresholds[block], weights)
        probs = probs if temperature is None else apply_temperature(probs, temperature)
        excess += metrics.calibration_excess(labels, probs, weights, CALIBRATION_BINS)
    return metrics.metrics_of_counts(*counts), metrics.calibration_error(excess), counts


def calibration_lines(result: Mapping[str, Any], default_threshold: float) -> list[str]:
    """Lines that tell users what was chosen.

    Args:
        result: what `summarize_calibration` returned, and in addition `split`.
        default_threshold: the threshold that the result is compared with.
    """
    every = [{"class": name, "positives": count} for name, count in result["positives"].items()]
    names = [row["class"] for row in most_positives(every, MOST_CLASSES)]
    width = max(5, *(len(printable(name)) for name in names))
    lines = [
        f"\n{'class':{width}}{'positives':>11}{'threshold':>11}{'90 % of':>16}{'precision':>11}{'recall':>8}"
    ]
    for name in names:
        correct, predicted, present = (result[key][name] for key in ("correct", "predicted", "positives"))
        low, high = result["intervals"].get(name, (None, None))
        interval = "" if low is None else f"{low:.3f} .. {high:.3f}"
        note = f"   {result['not_as_wanted'][name]}" if name in result["not_as_wanted"] else ""
        lines.append(
            f"{printable(name):{width}}{present:11}{result['thresholds'][name]:11.4f}{interval:>16}"
            f"{percent(correct / predicted if predicted else None):>11}"
            f"{percent(correct / present if present else None):>8}{note}"
        )
    if len(names) < len(every):
        lines.append(
            f"... and {len(every) - len(names):,} classes that fewer images show: see thresholds.json"
        )
    before, after = result["before"], result["after"]
    decided = columns.measures(columns.Detail.PAPER, of_decisions=True)
    return [
        *lines,
        f"\non the same {result['images']} images of {result['split']}, so a little better than on others:",
        *(
            f"{name:24}" + "".join(f"{cell:>7}" for cell in cells)
            for name, cells in (
                ("", columns.titles(decided)),
                (f"{default_threshold:g} for all", columns.cells(decided, before)),
                ("a threshold a class", columns.cells(decided, after)),
            )
        ),
        f"temperature {result['temperature']:.3f}:"
        f" expected calibration error {before['ECE']:.4f} -> {after['ECE']:.4f}",
    ]


def _logits(probs: Array) -> Array:
    # float32 probabilities can be 0 and 1, whose logits are infinite.
    clipped = np.clip(np.asarray(probs, np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def _sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))
