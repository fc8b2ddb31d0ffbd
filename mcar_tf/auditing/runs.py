"""Predicts, with each run to be audited, the pictures that it never learnt from; keeps what was predicted already."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.predictions_file import read_predictions, write_predictions
from mcar_tf.option_rules import NO_SPLIT
from mcar_tf.runs.folder import learnt_before, own_results, read_classes, read_run_config
from mcar_tf.runs.splits import find_split, has_labels, trains_on
from pipelines.manifest import Manifest, Portion, Split, load_manifest

if TYPE_CHECKING:
    from mcar_tf.runs.loading import Run


@dataclasses.dataclass(frozen=True)
class AuditedRun:
    """A run and the pictures that its opinion is asked about.

    Attributes:
        folder: the run folder.
        config: its options.
        manifest: of its prepared set.
        split_name, split: the pictures.
        kept: where the predictions are kept: where `evaluate` puts those of an unchanged run.
    """

    folder: Path
    config: FitConfig
    manifest: Manifest
    split_name: str
    split: Split | Portion
    kept: Path


def find_runs(folders: Sequence[Path], split: str | None, data_dir: Path | None) -> list[AuditedRun]:
    """Find the runs and their splits.

    Args:
        folders: the run folders.
        split: the split to audit; None: each run's `eval_split`.
        data_dir: folder of the prepared sets; None: that of each run.

    Raises:
        ValueError: a run learnt from the split, the split has no labels, or runs have other classes or sets.
    """
    runs = []
    for folder in folders:
        config = read_run_config(folder)
        data = data_dir or config.data_dir
        manifest = load_manifest(data, config.dataset)
        name = split or config.eval_split
        if name == NO_SPLIT:
            raise ValueError(f"{folder} has no --eval-split: name the split to audit by --split.")
        found = find_split(config, manifest, name)
        if trains_on(config, name):
            raise ValueError(
                f"{folder} was trained on {config.train_split}: it would repeat the labels of {name} that it learnt."
                " Audit a split that it never saw, or all pictures by one run for each fold (pipelines.build --folds,"
                " fit --fold)."
            )
        if source := learnt_before(config, name):
            raise ValueError(
                f"{folder} started from {source}, which learnt from pictures of {name}: it would repeat their labels."
                " Train it again without --init-from, or from a run that never saw them."
            )
        if not has_labels(found):
            raise ValueError(f"The split {name} of {manifest.name} has no labels to audit.")
        own = own_results(folder, config) if name == config.eval_split else folder / "evaluations" / name
        runs.append(AuditedRun(folder, config, manifest, name, found, own / "predictions.npz"))
    first = runs[0]
    for run in runs[1:]:
        if (run.manifest.name, run.manifest.classes) != (first.manifest.name, first.manifest.classes):
            raise ValueError(
                f"{run.folder} is a run on {run.manifest.name}, {first.folder} one on {first.manifest.name}: runs"
                " must be of one set."
            )
    return runs


def predict_run(run: AuditedRun, data_dir: Path | None) -> Predictions:
    """The run's predictions: those kept, if they are of these pictures and labels and younger than the weights.

    Else they are made now. They are kept, unless the set lies in another folder than the run's.

    Raises:
        ValueError: the set is not the one that the run was trained on.
    """
    weights = run.folder / "checkpoints" / "last.weights.h5"
    if run.kept.is_file() and weights.is_file() and run.kept.stat().st_mtime_ns > weights.stat().st_mtime_ns:
        found = read_predictions(run.kept)
        asked = read_classes(run.folder), run.split_name, run.manifest.content_hash
        if (found.classes, found.split, found.data) == asked:
            return found.predictions

    from mcar_tf.evaluating.predicting import predict_split

    loaded = load_audited(run)
    predictions = predict_split(loaded.model, run.split, batch_size=loaded.config.batch_size)
    if data_dir is None or data_dir.resolve() == run.config.data_dir.resolve():
        run.kept.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(run.kept, predictions, loaded.classes, run.split_name, run.manifest.content_hash)
    return predictions


def load_audited(run: AuditedRun) -> "Run":
    """The run's model.

    Raises:
        ValueError: the set is not the one that the run was trained on.
    """
    from mcar_tf.runs.loading import check_classes, load_run

    loaded = load_run(run.folder)
    check_classes(loaded, run.manifest)
    return loaded


def check_apart(runs: Sequence[AuditedRun], parts: Sequence[Predictions]) -> None:
    """Refuse runs that were asked about the same pictures, whose labels would be judged twice."""
    for number, part in enumerate(parts):
        for other in range(number):
            if len(np.intersect1d(part.ids, parts[other].ids)):
                raise ValueError(
                    f"{runs[number].folder} and {runs[other].folder} share pictures ({runs[number].split_name} and"
                    f" {runs[other].split_name}). Give one run for each fold."
                )
