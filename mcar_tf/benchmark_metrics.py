"""What exact metrics cost: `python -m mcar_tf.benchmark_metrics`. Seconds of one core, beside naive loops."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from pipelines.command import option, parse_options, run_command
from pipelines.files import write_text

Array = npt.NDArray[Any]
PRESENT = 0.036  # share of positive pairs of image and class, as in COCO with its 2.9 labels per image
THRESHOLD = 0.6


@dataclasses.dataclass
class BenchmarkOptions:
    """The options of `benchmark_metrics`."""

    # fmt: off
    pictures: int = option(40137, "Number of pictures; the default is that of COCO 2014's labelled validation.",
                           was="images")
    classes: int = option(80, "Number of classes.")
    rounds: int = option(5, "How often the fast form is measured; the naive one is measured once.")
    json: Path | None = option(None, "Also write the results to this file.")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        BenchmarkOptions,
        argv,
        module="mcar_tf.benchmark_metrics",
        description="Time the exact metrics against loops over pictures and classes, on random labels and scores.",
    )
    for name, least in (("pictures", 1), ("classes", 3), ("rounds", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {getattr(options, name)}")
    results = benchmark(options.pictures, options.classes, options.rounds)
    print(
        f"{options.pictures} x {options.classes} scores, seconds of processor time (median of {options.rounds})"
    )
    print(f"{'':22}{'here':>8}{'naive loop':>12}{'ratio':>8}{'differ by':>12}")
    for row in results:
        print(
            f"{row['metric']:22}{row['seconds']:8.3f}{row['naive_seconds']:12.2f}"
            f"{row['naive_seconds'] / row['seconds']:8.1f}{row['largest_difference']:12.1e}"
        )
    if options.json:
        write_text(options.json, json.dumps(results, indent=1) + "\n")


def benchmark(images: int, classes: int, rounds: int) -> list[dict[str, Any]]:
    """Time the metrics and their naive loops on random predictions.

    Returns:
        A dict for each metric, and one for all together, with `metric`, `seconds`, `naive_seconds` and
        `largest_difference`.
    """
    rng = np.random.default_rng(0)
    labels = (rng.random((images, classes)) < PRESENT).astype(np.float32)
    labels[0] = 1  # gives every class a positive, because the loops can't handle classes without
    # No two scores of a class are equal, because the loops do not treat ties.
    ranks = rng.permuted(np.tile(np.arange(images)[:, None], classes), axis=0)
    scores = ((ranks + 0.5) / images).astype(np.float32)
    results: list[dict[str, Any]] = []
    for name, fast, naive in FORMS:
        times = []
        for _ in range(rounds):
            seconds, found = _timed(fast, labels, scores)
            times.append(max(seconds, 1e-9))  # not 0, which a coarse clock may give
        naive_seconds, expected = _timed(naive, labels, scores)
        results.append(
            {
                "metric": name,
                "seconds": float(np.median(times)),
                "naive_seconds": naive_seconds,
                "largest_difference": float(np.abs(found - expected).max()),
            }
        )
    sums = {key: sum(row[key] for row in results) for key in ("seconds", "naive_seconds")}
    largest = max(row["largest_difference"] for row in results)
    return [*results, {"metric": "all together", **sums, "largest_difference": largest}]


def loop_average_precision(labels: Array, scores: Array) -> Array:
    """AP of each class, by a loop down its ranking; scores must have no ties."""
    aps = []
    for c in range(labels.shape[1]):
        ranking = sorted(zip(scores[:, c].tolist(), labels[:, c].tolist(), strict=True), reverse=True)
        found, precisions = 0, []
        for place, (_, label) in enumerate(ranking, start=1):
            if label:
                found += 1
                precisions.append(found / place)
        aps.append(sum(precisions) / len(precisions))
    return np.array(aps)


def loop_11_point(labels: Array, scores: Array) -> Array:
    """VOC 2007's AP of each class, by the same loop."""
    aps = []
    for c in range(labels.shape[1]):
        ranking = sorted(zip(scores[:, c].tolist(), labels[:, c].tolist(), strict=True), reverse=True)
        positives, found, best = sum(label > 0 for _, label in ranking), 0, [0.0] * 11
        for place, (_, label) in enumerate(ranking, start=1):
            if label:
                found += 1
                for tenth in range(11):
                    if 10 * found >= tenth * positives:
                        best[tenth] = max(best[tenth], found / place)
        aps.append(sum(best) / 11)
    return np.array(aps)


def loop_six(labels: Array, scores: Array) -> Array:
    """The six measures of equation (10), by counting pair by pair."""
    decisions = [[score >= THRESHOLD for score in row] for row in scores.tolist()]
    return _equation_10(labels.tolist(), decisions)


def loop_top_3(labels: Array, scores: Array) -> Array:
    """The six measures of equation (10) when each image is assigned its three most probable classes."""
    decisions = []
    for row in scores.tolist():
        leading = sorted(range(len(row)), key=lambda c: -row[c])[:3]
        decisions.append([c in leading for c in range(len(row))])
    return _equation_10(labels.tolist(), decisions)


def loop_calibration_error(labels: Array, scores: Array) -> Array:
    """The expected calibration error, by putting each pair into its bin in a loop."""
    excess = [0.0] * 15
    for label_row, score_row in zip(labels.tolist(), scores.tolist(), strict=True):
        for label, score in zip(label_row, score_row, strict=True):
            excess[min(int(score * 15), 14)] += score - label
    return np.array(sum(abs(value) for value in excess) / labels.size)


def _equation_10(labels: list[list[float]], decisions: list[list[bool]]) -> Array:
    classes = len(labels[0])
    correct, predicted, present = [0] * classes, [0] * classes, [0] * classes
    for label_row, decision_row in zip(labels, decisions, strict=True):
        for c in range(classes):
            correct[c] += bool(label_row[c] and decision_row[c])
            predicted[c] += decision_row[c]
            present[c] += bool(label_row[c])
    op, overall = sum(correct) / max(sum(predicted), 1), sum(correct) / sum(present)
    cp = sum(m / max(p, 1) for m, p in zip(correct, predicted, strict=True)) / classes
    cr = sum(m / g for m, g in zip(correct, present, strict=True)) / classes
    return np.array([op, overall, metrics.f1(op, overall), cp, cr, metrics.f1(cp, cr)])


def _six(found: dict[str, float]) -> Array:
    return np.array([found[name] for name in ("OP", "OR", "OF1", "CP", "CR", "CF1")])


def _timed(function: Callable[[Array, Array], Array], labels: Array, scores: Array) -> tuple[float, Array]:
    """The processor time of all threads together (what one core would take, whatever else runs), and the result."""
    start = time.process_time()
    found = function(labels, scores)
    return time.process_time() - start, found


FORMS: tuple[tuple[str, Callable[[Array, Array], Array], Callable[[Array, Array], Array]], ...] = (
    ("average precision", metrics.average_precision, loop_average_precision),
    ("11-point AP", metrics.average_precision_11_point, loop_11_point),
    ("OP .. CF1", lambda y, p: _six(metrics.precision_recall_f1(y, p, THRESHOLD)), loop_six),
    ("OP .. CF1, top 3", lambda y, p: _six(metrics.top_k_metrics(y, p)), loop_top_3),
    ("ECE", lambda y, p: np.array(metrics.expected_calibration_error(y, p)), loop_calibration_error),
)


if __name__ == "__main__":
    run_command(main)
