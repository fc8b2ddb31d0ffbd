"""Calibrate: `python -m mcar_tf.calibrate --run DIR`. A run and its validation split in, `thresholds.json` out."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.calibration import (
    calibration_lines,
    choose_thresholds,
    fit_temperature,
    summarize_calibration,
)
from mcar_tf.model_options import ModelOptions
from mcar_tf.runs.folder import command_on, learnt_before, read_run_config
from mcar_tf.runs.splits import find_split, overlap, split_names, trains_on
from mcar_tf.runs.thresholds import THRESHOLDS, chosen_for, write_calibration
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.manifest import Manifest, load_manifest
from pipelines.words import next_steps

Array = npt.NDArray[Any]

CHOICE, DATA = "thresholds", "data"


@dataclasses.dataclass(kw_only=True)
class CalibrateOptions(ModelOptions):
    """The options of `calibrate`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=DATA)
    split: str = option("validation", "Split by which thresholds are chosen; neither one that was trained on nor"
                        " that of the run's result.", group=DATA)
    data_dir: Path | None = option(None, "Folder of the prepared sets (default: the one that the run used).",
                                   group=DATA)

    min_precision: float | None = option(None, "Smallest precision allowed for a class; its threshold is then the one"
                                         " with the highest recall that keeps to it (default: the one with the"
                                         " highest F1).", group=CHOICE, was="precision")
    min_positives: int = option(5, "A class with fewer positive images in the split gets --default-threshold.",
                                group=CHOICE)
    prior_positives: float = option(5.0, "How strongly a class's threshold is drawn towards the best one for all"
                                    " classes together: as if that many positives supported it; 0: not at all.",
                                    group=CHOICE)
    default_threshold: float = option(0.6, "Threshold of a class with too few positives.", group=CHOICE)
    # fmt: on


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
    from mcar_tf.evaluating.metrics_file import to_json
    from mcar_tf.evaluating.predicting import predict_split
    from mcar_tf.runs.loading import check_classes, load_run

    run = load_run(options.run, checkpoint=options.checkpoint, **options.changes)
    check_classes(run, manifest)
    predictions = predict_split(run.model, split, batch_size=run.config.batch_size)
    if not (predictions.label_flags.bits & predictions.weight_flags.bits).any():
        raise ValueError(f"No image of {options.split} shows any class: there is nothing to calibrate by.")
    calibration = choose_thresholds(
        predictions,
        min_precision=options.min_precision,
        min_positives=options.min_positives,
        prior_positives=options.prior_positives,
        default_threshold=options.default_threshold,
    )
    temperature = fit_temperature(predictions)
    result = {
        "split": options.split,
        "checkpoint": options.checkpoint,
        "objective": "F1" if options.min_precision is None else f"precision {options.min_precision:g}",
        "min_positives": options.min_positives,
        "prior_positives": options.prior_positives,
        **summarize_calibration(
            run.classes, predictions, calibration, temperature, options.default_threshold
        ),
    }
    write_calibration(options.run, to_json(result), chosen_for(run.config, run.weights_file))
    print("\n".join(calibration_lines(result, options.default_threshold)))
    print(f"\nwritten to {options.run / THRESHOLDS}")
    print(
        next_steps(
            (f"{command_on(options.run, 'evaluate')} --calibrated", "what they are worth on other pictures"),
            (command_on(options.run, "export"), "files for servers and phones, with the thresholds inside"),
        )
    )


def check_options(options: CalibrateOptions) -> None:
    """Refuse numbers that are out of range."""
    if options.min_precision is not None and not 0 < options.min_precision <= 1:
        raise ValueError(f"`min-precision` must lie in (0, 1]. Received: {options.min_precision}")
    if not 0 <= options.default_threshold <= 1:
        raise ValueError(f"`default-threshold` must lie in [0, 1]. Received: {options.default_threshold}")
    if not 0 <= options.prior_positives < math.inf:
        raise ValueError(
            f"`prior-positives` must be 0 or more and finite. Received: {options.prior_positives}"
        )
    if options.min_positives < 1:
        raise ValueError(f"`min-positives` must be at least 1. Received: {options.min_positives}")


def check_split(name: str, config: FitConfig, manifest: Manifest) -> None:
    """Refuse a split that the run learnt from or that its results are measured on."""
    for other, use, shares in (
        (config.train_split, "trained on", trains_on(config, name)),
        (config.eval_split, "evaluated on", overlap(name, config.eval_split)),
    ):
        if shares:
            shared = "" if name == other else f", which has pictures of {name}"
            raise ValueError(
                f"The run was {use} {other}{shared}: thresholds chosen there would flatter it. Choose another"
                " --split."
            )
    if source := learnt_before(config, name):
        raise ValueError(
            f"The run started from {source}, which learnt from pictures of {name}: thresholds chosen there would"
            " flatter it. Choose another --split."
        )
    names = split_names(config, manifest)
    if name not in names:
        raise ValueError(
            f"The run has no split {name!r} (it has {', '.join(names)}), and thresholds chosen on"
            " training or test pictures would flatter the run. Train with --val-fraction 0.1, or build the set with a"
            " validation split."
        )


if __name__ == "__main__":
    run_command(main)
