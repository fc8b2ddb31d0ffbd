"""Labels and probabilities of a validation split in, thresholds and a temperature out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.evaluating import columns
from pipelines.words import percent

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was chosen, by class (C,), and for which classes it could not be.

    Attributes:
        thresholds: (C,) float64, of fused probabilities as the model gives them.
        reasons: class index -> why its threshold is not what was asked for.
    """

    thresholds: Array
    reasons: dict[int, str]


def choose_thresholds(
    labels: Array,
    probs: Array,
    weights: Array,
    *,
    min_precision: float | None = None,
    min_positives: int = 5,
    default_threshold: float = 0.6,
) -> Calibration:
    """The decision threshold of each class.

    Args:
        labels: (N, C), 0 or 1.
        probs: (N, C).
        weights: (N, C), 0 where a label doesn't count.
        min_precision: choose the highest recall that goes with it; None: the highest F1.
        min_positives: of a class for it to be calibrated: a threshold drawn from two pictures is noise.
        default_threshold: of the others.
    """
    chosen, reasons = np.full(labels.shape[1], default_threshold), {}
    for c in range(labels.shape[1]):
        positives = int(((labels[:, c] > 0) & (weights[:, c] > 0)).sum())
        if positives < min_positives:
            reasons[c] = f"only {positives} of {min_positives} positives"
            continue
        p, recall, threshold = metrics.precision_recall_curve(labels[:, c], probs[:, c], weights[:, c])
        if min_precision is None:
            # recall > 0 at every point of the curve: no division by zero.
            best = int(np.argmax(2 * p * recall / (p + recall)))
        else:
            reached = np.flatnonzero(p >= min_precision)  # by descending threshold, so by ascending recall
            best = int(reached[-1]) if reached.size else int(np.argmax(p))
            if not reached.size:
                reasons[c] = f"no threshold has precision {min_precision:g}; the best has {p[best]:.2f}"
        chosen[c] = _below(threshold[best], probs[weights[:, c] > 0, c])
    return Calibration(chosen, reasons)


def fit_temperature(labels: Array, probs: Array, weights: Array) -> float:
    """The temperature T for which sigmoid(logit / T) is most likely: one number for all classes.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, for yes-or-no decisions.
    It keeps every order and, thresholds moved along, every decision. Arguments as for `choose_thresholds`.
    """
    from scipy.optimize import minimize_scalar

    counts = weights > 0
    signs, logits = 2.0 * labels[counts] - 1, _logits(probs[counts])

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signs * logits / np.exp(log_temperature)).mean())

    # Separable or constant probabilities have no optimum but zero or infinity: hence bounds, 0.05 to 20.
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def apply_temperature(probs: Array, temperature: float) -> Array:
    """Probabilities as they are after calibration, float64."""
    return 1 / (1 + np.exp(-_logits(probs) / temperature))


def summarize(
    classes: Sequence[str],
    truth: tuple[Array, Array, Array],
    calibration: Calibration,
    temperature: float,
    default_threshold: float,
) -> dict[str, Any]:
    """What was chosen and what it changes, a part of `thresholds.json`."""
    labels, probs, weights = truth
    before = metrics.precision_recall_f1(labels, probs, default_threshold, weights)
    after = metrics.precision_recall_f1(labels, probs, calibration.thresholds, weights)
    return {
        "images": len(labels),
        "thresholds": dict(zip(classes, calibration.thresholds.tolist(), strict=True)),
        "not_as_wanted": {classes[c]: reason for c, reason in calibration.reasons.items()},
        "temperature": temperature,
        "before": before | {"ECE": metrics.expected_calibration_error(labels, probs, weights)},
        "after": after
        | {"ECE": metrics.expected_calibration_error(labels, apply_temperature(probs, temperature), weights)},
    }


def table_lines(
    classes: Sequence[str],
    truth: tuple[Array, Array, Array],
    calibration: Calibration,
    result: Mapping[str, Any],
    default_threshold: float,
) -> list[str]:
    """What was chosen, for people."""
    labels, probs, weights = truth
    correct, predicted, present = metrics.count_decisions(labels, probs >= calibration.thresholds, weights)
    width = max(5, *map(len, classes))
    lines = [f"\n{'class':{width}}{'positives':>11}{'threshold':>11}{'precision':>11}{'recall':>8}"]
    for c, name in enumerate(classes):
        precision = percent(correct[c] / predicted[c] if predicted[c] else None)
        recall = percent(correct[c] / present[c] if present[c] else None)
        note = f"   {calibration.reasons[c]}" if c in calibration.reasons else ""
        lines.append(
            f"{name:{width}}{present[c]:11}{calibration.thresholds[c]:11.4f}{precision:>11}{recall:>8}{note}"
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


def _below(threshold: float, probs: Array) -> float:
    """Halfway from a score down to the next lower one: the same decisions, and room on both sides."""
    lower = probs[probs < threshold]
    return float((threshold + lower.max()) / 2) if lower.size else float(threshold)


def _logits(probs: Array) -> Array:
    # float32 probabilities can be 0 and 1, whose logits are infinite.
    clipped = np.clip(np.asarray(probs, np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))
