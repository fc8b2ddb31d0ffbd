"""Predictions of a validation split in, a decision threshold for each class and a temperature out."""

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

RESAMPLES = 100  # of the images, for the intervals
MOST_PAIRS = 4_000_000  # of image and class, that the temperature is fitted to
LARGEST_LOGIT, LOGIT_STEP = 16, 1 / 128  # where the threshold of all classes together is looked for


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was chosen.

    Attributes:
        thresholds: (C,) float64, of fused probabilities as the model gives them.
        intervals: (C, 2), where 90 % of the thresholds lie that images drawn with replacement give; NaN for a class
            that keeps the default.
        positives: (C,), images that show the class.
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
    """The decision threshold of each class.

    What is best on a few images is so by chance, the more the fewer positives a class has. So its threshold is the
    mean, taken of logits, of its own best one, which counts as often as it has positives, and of the best one for all
    classes together, which counts `prior_positives` times: with 5 positives the own one counts half, with 500 it
    counts 99 %. Where a precision is wanted, the others can only raise a threshold.

    Args:
        predictions: of the split.
        min_precision: choose the highest recall that goes with it; None: the highest F1.
        min_positives: a class that fewer images show keeps the default.
        prior_positives: how many positives the threshold of all classes together weighs as much as; 0: each class's
            own one alone.
        default_threshold: of classes that keep it.
        seed: of the images that are drawn for the intervals.
    """
    count, classes = len(predictions), predictions.num_classes
    overall = _overall_threshold(predictions, min_precision)
    chosen, intervals = np.full(classes, default_threshold), np.full((classes, 2), np.nan)
    positives, reasons = np.zeros(classes, int), {}
    rng = np.random.default_rng(seed)
    # How often each image is drawn: (N, 1 + resamples), the images as they are first.
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
                mixed = own  # to the last digit
            elif min_precision is not None:
                mixed = np.maximum(mixed, own)  # no class gives up precision for the sake of the others
            chosen[c] = mixed[0]
            intervals[c] = np.nanpercentile(mixed[1:], [5, 95])
    return Calibration(chosen, intervals, positives, overall, reasons)


def _best_thresholds(
    labels: Array, probs: Array, drawn: Array, min_precision: float | None
) -> tuple[Array, float]:
    """The best threshold of a class on images that are there several times.

    Args:
        labels: (n,) bool, one positive at least.
        probs: (n,).
        drawn: (n, R), how often each image is there; in the first column once.
        min_precision: as for `choose_thresholds`.

    Returns:
        (R,) thresholds, NaN where no positive is there, and the first column's best precision.
    """
    order = np.argsort(-probs, kind="stable")
    labels, probs = labels[order], probs[order]
    positives = np.flatnonzero(labels)
    # No threshold but a positive's probability is worth choosing; halfway to the next lower one it makes the same
    # decisions and has room on both sides.
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
    """Which of T thresholds, descending, is best: (R,) of (T, R) counts; and the precision (T, R)."""
    precision = relevant / np.maximum(retrieved, 1)
    if min_precision is None:
        return np.argmax(2 * relevant / np.maximum(retrieved + relevant[-1], 1), axis=0), precision
    reached = precision >= min_precision
    last = len(reached) - 1 - np.argmax(reached[::-1], axis=0)  # the lowest threshold has the highest recall
    return np.where(reached.any(axis=0), last, np.argmax(precision, axis=0)), precision


def _overall_threshold(predictions: Predictions, min_precision: float | None) -> float:
    """The best threshold for all pairs of image and class together, to `LOGIT_STEP`."""
    steps = int(2 * LARGEST_LOGIT / LOGIT_STEP) + 1
    histogram = np.zeros((2, steps), int)  # of positives, of all pairs; by logit, from below
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
    It keeps every order and, thresholds moved along, every decision.

    Args:
        predictions: of the split.
        seed: of the pairs of image and class that it is fitted to, where there are more than `MOST_PAIRS`.
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

    # Separable or constant probabilities have no optimum but zero or infinity: hence bounds, 0.05 to 20.
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def apply_temperature(probs: Array, temperature: float) -> Array:
    """Probabilities as they are after calibration, float64."""
    return _sigmoid(_logits(probs) / temperature)


def summarize_calibration(
    classes: Sequence[str],
    predictions: Predictions,
    calibration: Calibration,
    temperature: float,
    default_threshold: float,
) -> dict[str, Any]:
    """What was chosen and what it changes, a part of `thresholds.json`."""
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
    """OP .. CF1 by thresholds, the calibration error by a temperature, and the counts of the decisions, (3, C)."""
    counts, excess = np.zeros((3, predictions.num_classes), int), np.zeros((2, CALIBRATION_BINS))
    for block in predictions.class_blocks():
        labels, weights = predictions.truth(classes=block)
        probs = predictions.stream("fused", classes=block).astype(np.float64)
        counts[:, block] = metrics.count_decisions(labels, probs >= thresholds[block], weights)
        probs = probs if temperature is None else apply_temperature(probs, temperature)
        excess += metrics.calibration_excess(labels, probs, weights, CALIBRATION_BINS)
    return metrics.metrics_of_counts(*counts), metrics.calibration_error(excess), counts


def calibration_lines(result: Mapping[str, Any], default_threshold: float) -> list[str]:
    """What was chosen, for people.

    Args:
        result: of `summarize_calibration`, and `split`.
        default_threshold: that the result is held against.
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
