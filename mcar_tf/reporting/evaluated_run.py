"""Reads from an evaluated run folder what the report shows of it. Loads no TensorFlow."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.metrics_file import read_metrics
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.predictions_file import read_predictions
from mcar_tf.evaluating.results import Counted, count, summarize
from mcar_tf.reporting.regions import Region, regions_of_outputs, select_regions
from mcar_tf.runs.folder import command_on, own_results, read_run_config
from mcar_tf.runs.thresholds import find_thresholds, same_for_all
from pipelines.reading import read_text

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """A run folder's content, as far as the report shows it.

    Attributes:
        name: name for readers, different for each run in a report.
        folder: the run folder.
        config: the options that the run was trained with.
        classes: C names.
        split: the split that the predictions are for.
        predictions: content of `predictions.npz`.
        thresholds: (C,) float64; a class is predicted at its own threshold or above.
        decided_by: says which thresholds these are.
        counted: counts of the predictions, made with these thresholds.
        metrics: metrics of the predictions, made with these thresholds, by stream.
        history: rows of `history.csv`, with numbers instead of texts.
        localization: the entry of that name in `metrics.json`, or None.
        calibration: content of `thresholds.json`, or None.
    """

    name: str
    folder: Path
    config: FitConfig
    classes: tuple[str, ...]
    split: str
    predictions: Predictions
    thresholds: Array
    decided_by: str
    counted: Counted
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    localization: dict[str, Any] | None
    calibration: Mapping[str, Any] | None


def name_runs(folders: Sequence[Path]) -> list[str]:
    """A name for each run: the last parts of its folder's path, as many as are needed to tell the runs apart.

    Raises:
        ValueError: a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ValueError("A run can't be compared with itself: a folder is given twice.")
    count = 1
    while len({path[-count:] for path in parts}) < len(parts):
        count += 1
    return ["/".join(path[-count:]) for path in parts]


def read_evaluated_run(folder: Path, name: str, threshold: float | None = None) -> EvaluatedRun:
    """Read a run folder on which `evaluate` has been run.

    Args:
        folder: the run folder.
        name: the run's name for readers.
        threshold: the probability at which a class is predicted; None for the thresholds that
            `mcar_tf.runs.thresholds` finds for the run's weights.

    Raises:
        FileNotFoundError: there is no run, or it has not been evaluated yet.
        ValueError: the split that it was evaluated on has no labels.
    """
    config = read_run_config(folder)
    results = own_results(folder, config)
    if not (results / "predictions.npz").is_file():
        raise FileNotFoundError(
            f"{results} holds no predictions.npz yet. Run first: {command_on(folder, 'evaluate')}"
        )
    predictions, classes, split, _ = read_predictions(results / "predictions.npz")
    if not predictions.weight_flags.bits.any():
        raise ValueError(f"{folder} was evaluated on {split}, which has no labels: nothing can be reported.")
    weights_file = folder / "checkpoints" / "last.weights.h5"
    if threshold is None:
        decision = find_thresholds(folder, config, classes, weights_file)
    else:
        decision = same_for_all(classes, threshold)
    counted = count(predictions, decision.values)
    found = summarize(counted)
    written = read_metrics(results / "metrics.json").get(split, {})
    before, now = written.get("fused", {}).get("mAP"), found["fused"]["mAP"]
    # On another machine the last digits may differ.
    if not (math.isnan(now) if before is None else abs(now - before) < 1e-9):
        raise ValueError(
            f"{results}/predictions.npz does not give the mAP of metrics.json: the run went on after its evaluation."
            f" Run again: {command_on(folder, 'evaluate')}"
        )
    return EvaluatedRun(
        name=name,
        folder=folder,
        config=config,
        classes=classes,
        split=split,
        predictions=predictions,
        thresholds=np.array(decision.values),
        decided_by=decision.said,
        counted=counted,
        metrics=found,
        history=_read_history(folder / "history.csv"),
        localization=written.get("localization"),
        calibration=decision.calibration,
    )


def regions_of(run: EvaluatedRun, row: int) -> list[Region]:
    """The regions of a picture that the report shows, the most probable first."""
    return select_regions(run.predictions.outputs(row), run.classes, threshold=run.thresholds)


def all_regions(run: EvaluatedRun, row: int) -> list[Region]:
    """All regions of a picture, in the order of its boxes."""
    return regions_of_outputs(run.predictions.outputs(row), run.classes)


def positives_of(run: EvaluatedRun) -> Array:
    """How many pictures show each class, (C,)."""
    return run.counted.streams["fused"].decisions[2]


def _read_history(path: Path) -> list[dict[str, float]]:
    """Rows of `history.csv`; empty fields are left out."""
    if not path.is_file():
        return []
    try:
        rows = csv.DictReader(read_text(path).splitlines(), strict=True)
        return [{name: float(value) for name, value in row.items() if value} for row in rows]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged: it should hold a row of numbers an epoch. Delete it."
        ) from error
