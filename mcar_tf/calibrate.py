"""Calibrate: `python -m mcar_tf.calibrate --run DIR`. A run and its validation split in, `thresholds.json` out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.config import FitConfig
from mcar_tf.evaluating import columns
from mcar_tf.runs.folder import read_run_config
from mcar_tf.runs.splits import find_split, split_names
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.manifest import Manifest, load_manifest
from pipelines.words import percent

Array = npt.NDArray[Any]

CHOICE, DATA = "thresholds", "data"


@dataclasses.dataclass
class CalibrateOptions:
    """What `calibrate` can be told."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=DATA)
    split: str = option("validation", "Split to choose by: neither trained on nor the run's result.", group=DATA)
    data_dir: Path | None = option(None, "Where prepared sets lie (null: where they lay for the run).",
                                   group=DATA)
    checkpoint: Literal["last", "best"] = option("last", "Weights, as for evaluate.", group=DATA)

    precision: float | None = option(None, "Wanted precision of each class: the threshold with the highest recall"
                                     " that has it (null: the threshold with the highest F1).", group=CHOICE)
    min_positives: int = option(5, "Classes that fewer images of the split show keep --default-threshold.",
                                group=CHOICE)
    default_threshold: float = option(0.6, "For classes that can't be calibrated.", group=CHOICE)
    # fmt: on


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was chosen, by class (C,), and for which classes it could not be.

    Attributes:
        thresholds: (C,) float64, of fused probabilities as the model gives them.
        reasons: class index -> why its threshold is not what was asked for.
    """

    thresholds: Array
    reasons: dict[int, str]


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        CalibrateOptions,
        argv,
        module="mcar_tf.calibrate",
        description="Choose each class's decision threshold, and a temperature that makes probabilities frequencies.",
    )
    check_options(options)
    config = read_run_config(options.run)
    manifest = load_manifest(options.data_dir or config.data_dir, config.dataset)
    check_split(options.split, config, manifest)
    split = find_split(config, manifest, options.split)

    load_tensorflow()
    from mcar_tf.evaluating.evaluation import predict_dataset, to_json
    from mcar_tf.runs.loading import load_run
    from pipelines.input_pipeline import make_eval_dataset

    run = load_run(options.run, checkpoint=options.checkpoint)
    dataset = make_eval_dataset(
        split.files,
        num_classes=len(run.classes),
        image_size=run.config.image_size,
        batch_size=run.config.batch_size,
        difficult="ignore",
    )
    predictions = predict_dataset(run.model, dataset, images=split.examples)
    truth = predictions.labels, predictions.probs, predictions.weights
    if not ((predictions.labels > 0) & (predictions.weights > 0)).any():
        raise ValueError(f"No image of {options.split} shows any class: there is nothing to calibrate by.")
    calibration = choose_thresholds(
        *truth,
        precision=options.precision,
        min_positives=options.min_positives,
        default_threshold=options.default_threshold,
    )
    temperature = fit_temperature(*truth)
    result = summarize(options, run.classes, truth, calibration, temperature)
    write_text(options.run / "thresholds.json", json.dumps(to_json(result), indent=1, allow_nan=False) + "\n")
    print("\n".join(report_lines(options, run.classes, truth, calibration, result)))


def check_options(options: CalibrateOptions) -> None:
    """Refuse numbers out of range."""
    if options.precision is not None and not 0 < options.precision <= 1:
        raise ValueError(f"`precision` must lie in (0, 1]. Received: {options.precision}")
    if not 0 <= options.default_threshold <= 1:
        raise ValueError(f"`default-threshold` must lie in [0, 1]. Received: {options.default_threshold}")
    if options.min_positives < 1:
        raise ValueError(f"`min-positives` must be at least 1. Received: {options.min_positives}")


def check_split(name: str, config: FitConfig, manifest: Manifest) -> None:
    """Refuse pictures that were learnt from or that results are measured on."""
    for option_name, use in (("train_split", "trained on"), ("eval_split", "evaluated on")):
        if name == getattr(config, option_name):
            raise ValueError(
                f"The run was {use} {name}: thresholds chosen there would flatter it. Choose another --split."
            )
    names = split_names(config, manifest)
    if name not in names:
        raise ValueError(
            f"The run has no split {name!r} (it has {', '.join(names)}), and thresholds chosen on"
            " training or test pictures would flatter the run. Train with --val-fraction 0.1, or build the set with a"
            " validation split."
        )


def choose_thresholds(
    labels: Array,
    probs: Array,
    weights: Array,
    *,
    precision: float | None = None,
    min_positives: int = 5,
    default_threshold: float = 0.6,
) -> Calibration:
    """The decision threshold of each class.

    Args:
        labels: (N, C), 0 or 1.
        probs: (N, C).
        weights: (N, C), 0 where a label doesn't count.
        precision: that is wanted, for the highest recall that goes with it; None: the highest F1.
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
        if precision is None:
            # recall > 0 at every point of the curve: no division by zero.
            best = int(np.argmax(2 * p * recall / (p + recall)))
        else:
            reached = np.flatnonzero(p >= precision)  # by descending threshold, so by ascending recall
            best = int(reached[-1]) if reached.size else int(np.argmax(p))
            if not reached.size:
                reasons[c] = f"no threshold has precision {precision:g}; the best has {p[best]:.2f}"
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
    options: CalibrateOptions,
    classes: Sequence[str],
    truth: tuple[Array, Array, Array],
    calibration: Calibration,
    temperature: float,
) -> dict[str, Any]:
    """The content of `thresholds.json`."""
    labels, probs, weights = truth
    before = metrics.precision_recall_f1(labels, probs, options.default_threshold, weights)
    after = metrics.precision_recall_f1(labels, probs, calibration.thresholds, weights)
    return {
        "split": options.split,
        "images": len(labels),
        "checkpoint": options.checkpoint,
        "objective": "F1" if options.precision is None else f"precision {options.precision:g}",
        "thresholds": dict(zip(classes, calibration.thresholds.tolist(), strict=True)),
        "not_as_wanted": {classes[c]: reason for c, reason in calibration.reasons.items()},
        "temperature": temperature,
        "before": before | {"ECE": metrics.expected_calibration_error(labels, probs, weights)},
        "after": after
        | {"ECE": metrics.expected_calibration_error(labels, apply_temperature(probs, temperature), weights)},
    }


def report_lines(
    options: CalibrateOptions,
    classes: Sequence[str],
    truth: tuple[Array, Array, Array],
    calibration: Calibration,
    result: dict[str, Any],
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
    lines += [
        f"\non the same {result['images']} images of {options.split}, so a little better than on others:",
        *(
            f"{name:24}" + "".join(f"{cell:>7}" for cell in cells)
            for name, cells in (
                ("", columns.titles(decided)),
                (f"{options.default_threshold:g} for all", columns.cells(decided, before)),
                ("a threshold a class", columns.cells(decided, after)),
            )
        ),
        f"temperature {result['temperature']:.3f}:"
        f" expected calibration error {before['ECE']:.4f} -> {after['ECE']:.4f}",
        f"\nwritten to {options.run / 'thresholds.json'}; evaluate --calibrated measures it on other pictures",
    ]
    return lines


def _below(threshold: float, probs: Array) -> float:
    """Halfway from a score down to the next lower one: the same decisions, and room on both sides."""
    lower = probs[probs < threshold]
    return float((threshold + lower.max()) / 2) if lower.size else float(threshold)


def _logits(probs: Array) -> Array:
    # float32 probabilities can be 0 and 1, whose logits are infinite.
    clipped = np.clip(np.asarray(probs, np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


if __name__ == "__main__":
    run_command(main)
