"""Evaluated runs in, the report's sections about numbers out: summary, comparison, training, classes, confusions."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mcar_tf import metrics
from mcar_tf.config import config_to_yaml
from mcar_tf.evaluating import columns
from mcar_tf.evaluating.results import evaluate_classes
from mcar_tf.reporting import page
from mcar_tf.reporting.evaluated_run import EvaluatedRun, has_positives, read_json
from mcar_tf.reporting.figures import (
    plot_class_ap,
    plot_confusions,
    plot_losses,
    plot_precision_recall,
    plot_validation_map,
)
from mcar_tf.reporting.page import Html
from mcar_tf.runs.folder import read_origin
from pipelines.words import percent


def summary_parts(runs: Sequence[EvaluatedRun], threshold: float) -> list[Html]:
    """The numbers that are asked for first, and what to know about them."""
    run = runs[0]
    fused = run.metrics["fused"]
    two_streams = run.config.top_n > 0
    title = "mAP, both streams" if two_streams else "mAP"
    if len(runs) > 1:
        title += f"; {runs[1].name}: {percent(runs[1].metrics['fused']['mAP'])}"
    named = [(percent(fused["mAP"]), title)]
    if two_streams:
        named += [
            (percent(run.metrics[stream]["mAP"]), f"mAP, {stream} stream") for stream in ("global", "local")
        ]
    named += [(percent(fused[name]), f"{name} at {threshold:g}") for name in ("CF1", "OF1")]
    notes = [f"A class counts as predicted from a probability of {threshold:g} on. All numbers are percent."]
    unknown = [run.classes[c] for c in np.flatnonzero(~has_positives(run))]
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(run.classes)} classes have no positives here and are left out of all means:"
            f" {', '.join(unknown)}."
        )
    if run.calibration:
        before, after = run.calibration["before"], run.calibration["after"]
        notes.append(
            f"Thresholds for each class were chosen on {run.calibration['split']} (OF1 {percent(before['OF1'])} →"
            f" {percent(after['OF1'])} there); temperature {run.calibration['temperature']:.2f}, expected calibration"
            f" error {percent(before['ECE'])} → {percent(after['ECE'])}."
        )
    else:
        notes.append("No thresholds were calibrated (python -m mcar_tf.calibrate).")
    regions = f"{run.config.top_n} regions an image" if two_streams else "no regions: the plain backbone"
    return [
        page.paragraph(
            f"{run.config.backbone}, {run.config.image_size} px, {regions}; measured on"
            f" {len(run.predictions)} pictures of {len(run.classes)} classes."
        ),
        page.cards(named),
        page.bullets(notes),
    ]


def comparison_parts(runs: Sequence[EvaluatedRun]) -> list[Html]:
    """Runs side by side, and the options in which they differ; nothing for one run alone."""
    if len(runs) == 1:
        return []
    shown = columns.measures(columns.Detail.PAPER)
    rows = []
    for run in runs:
        for stream in columns.streams_of(run.config.top_n):
            rows.append([f"{run.name}: {stream}", *columns.cells(shown, run.metrics[stream])])
    configs = [dataclasses.asdict(run.config) for run in runs]
    differing = [
        [name, *(str(config[name]) for config in configs)]
        for name in configs[0]
        if len({str(config[name]) for config in configs}) > 1
    ]
    parts = [page.table(["run and stream", *columns.titles(shown)], rows)]
    if differing:
        parts += [
            page.heading("Options that differ"),
            page.table(["option", *(run.name for run in runs)], differing),
        ]
    return parts


def training_parts(runs: Sequence[EvaluatedRun]) -> list[Html]:
    """Curves of the losses and of mAP on the validation split."""
    # The plain backbone has one stream, whose name the other two columns bear too.
    one_stream = {column for stream, column in columns.VALIDATION_MAP.items() if stream != "global"}
    histories = {
        run.name: [
            {name: value for name, value in row.items() if run.config.top_n or name not in one_stream}
            for row in run.history
        ]
        for run in runs
        if run.history
    }
    plots = []
    if histories:
        plots.append(page.picture(plot_losses(histories), "svg+xml", "Losses by epoch"))
    if any("val_mAP_global" in row for rows in histories.values() for row in rows):
        caption = "mAP on the validation split by epoch"
        plots.append(page.picture(plot_validation_map(histories), "svg+xml", caption))
    return [page.figures(plots)] if plots else []


def class_parts(runs: Sequence[EvaluatedRun], threshold: float) -> list[Html]:
    """AP of each class against the other runs', precision over recall, and all numbers."""
    run, truth = runs[0], runs[0].predictions
    if not has_positives(run).any():
        return [page.paragraph("No picture shows any class: nothing can be said of any.")]
    aps = {r.name: metrics.average_precision(truth.labels, r.predictions.probs, truth.weights) for r in runs}
    probs = {r.name: r.predictions.probs for r in runs}
    positives = ((truth.labels > 0) & (truth.weights > 0)).sum(axis=0)
    columns = {"AP": "AP_fused", "11-point AP": "AP_11_point", "P": "precision", "R": "recall", "F1": "F1"}
    if run.config.top_n:
        columns = {"AP global": "AP_global", "AP local": "AP_local"} | columns
    header = ["class", "positives", "predicted", *columns]
    rows = [
        [
            row["class"],
            *(str(row[key]) for key in ("positives", "predicted")),
            *(percent(row[key]) for key in columns.values()),
        ]
        for row in evaluate_classes(run.predictions, run.classes, threshold)
    ]
    return [
        page.figures(
            [
                page.picture(
                    plot_class_ap(run.classes, aps, positives),
                    "svg+xml",
                    "Average precision of each class; in brackets how many pictures show it",
                ),
                page.picture(
                    plot_precision_recall(run.classes, truth.labels, probs, truth.weights),
                    "svg+xml",
                    "Precision over recall, by class, with its average precision"
                    + (": the ten best and the ten worst" if len(run.classes) > 20 else ""),
                ),
            ]
        ),
        page.folded("All numbers of all classes", page.table(header, rows)),
    ]


def confusion_parts(run: EvaluatedRun, threshold: float) -> list[Html]:
    """What is claimed without being there, beside what."""
    predictions = run.predictions
    claimed, pictures = metrics.count_false_claims(
        predictions.labels, predictions.probs >= threshold, predictions.weights
    )
    if not claimed.any():
        return [page.paragraph("No class is claimed where it is not.")]
    # By count and not by rate: one of one would lead.
    pairs = np.argwhere(claimed > 0)
    pairs = pairs[np.argsort(-claimed[pairs[:, 0], pairs[:, 1]], kind="stable")][:12]
    rows = [
        [
            run.classes[a],
            run.classes[b],
            f"{claimed[a, b]} of {pictures[a, b]}",
            percent(claimed[a, b] / pictures[a, b]),
        ]
        for a, b in pairs
    ]
    return [
        page.paragraph(
            "Beside which class another one is claimed that is not in the picture: how often, of all pictures that"
            " show the one and not the other."
        ),
        page.figures(
            [
                page.picture(
                    plot_confusions(run.classes, claimed, pictures),
                    "svg+xml",
                    "False claims of the classes that are most often part of one. White: too few pictures to tell"
                    " (fewer than 5)",
                ),
                page.table(["in the picture", "claimed", "pictures", "%"], rows),
            ]
        ),
    ]


def provenance_parts(run: EvaluatedRun) -> list[Html]:
    """The options and versions that made the run."""
    options = [line.split(":", 1) for line in config_to_yaml(run.config).splitlines() if ":" in line]
    versions = read_json(run.folder / "environment.json") or {}
    origin = read_origin(run.folder)
    imported = [page.folded("Imported from", page.table(["", ""], list(origin.items())))] if origin else []
    title = "Options; those of training are not known" if origin else "Options"
    return [
        *imported,
        page.folded(title, page.table(["option", "value"], options)),
        page.folded("Versions", page.table(["package", "version"], list(versions.items()))),
    ]
