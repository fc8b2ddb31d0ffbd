"""Makes the report's sections about numbers: summary, comparison, training, classes and confusions."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.config import config_to_yaml
from mcar_tf.evaluating import columns
from mcar_tf.evaluating.results import class_rows, count_confusions
from mcar_tf.reporting import page
from mcar_tf.reporting.evaluated_run import EvaluatedRun, positives_of
from mcar_tf.reporting.figures import (
    plot_class_ap,
    plot_confusions,
    plot_losses,
    plot_precision_recall,
    plot_validation_map,
)
from mcar_tf.reporting.page import Html
from mcar_tf.runs.folder import read_environment, read_origin
from pipelines.words import counted, listed, percent

Array = npt.NDArray[Any]

# Most classes that a page shows. Of more, bars and panels show the best and worst, tables the most frequent.
MOST_BARS, MOST_PANELS, MOST_ROWS, MOST_CONFUSED = 80, 20, 500, 500


def summary_parts(runs: Sequence[EvaluatedRun]) -> list[Html]:
    """The most important numbers, and what to know about them."""
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
    named += [
        (percent(fused[m.name]), m.name) for m in columns.measures(columns.Detail.SHORT, of_decisions=True)
    ]
    notes = [f"A class is predicted from its threshold on: {run.decided_by}. All numbers are percent."]
    unknown = [run.classes[c] for c in np.flatnonzero(positives_of(run) == 0)]
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(run.classes)} classes have no positives here and are left out of all means:"
            f" {listed(unknown)}."
        )
    found = run.calibration or {}
    if {"split", "temperature", "before", "after"} <= found.keys():
        of1, ece = (
            [percent(found[when].get(name)) for when in ("before", "after")] for name in ("OF1", "ECE")
        )
        notes.append(
            f"Thresholds for each class were chosen on {found['split']} (OF1 {of1[0]} → {of1[1]} there); temperature"
            f" {found['temperature']:.2f}, expected calibration error {ece[0]} → {ece[1]}."
        )
    regions = (
        f"{counted(run.config.top_n, 'region')} an image" if two_streams else "no regions: the plain backbone"
    )
    return [
        page.paragraph(
            f"{run.config.backbone}, {run.config.image_size} px, {regions}; measured on"
            f" {counted(len(run.predictions), 'picture')} of {counted(len(run.classes), 'class')}."
        ),
        page.cards(named),
        *warning_parts(run),
        page.bullets(notes),
    ]


def warning_parts(run: EvaluatedRun) -> list[Html]:
    """A warning if the regions lower the mAP on these pictures; else nothing."""
    fused, alone = run.metrics["fused"]["mAP"], run.metrics["global"]["mAP"]
    if not run.config.top_n or not fused < alone:  # `not <` also covers NaN
        return []
    return [
        page.warning(
            f"Both streams together are worse than the global stream alone: mAP {percent(fused)} against"
            f" {percent(alone)}. On pictures like these one look (--top-n 0) is better, for less."
        )
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
    # The plain backbone has one stream, and the columns of the other two streams repeat its numbers.
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


def class_parts(runs: Sequence[EvaluatedRun]) -> list[Html]:
    """AP of each class beside that of the other runs, precision over recall, and all numbers."""
    run, positives = runs[0], positives_of(runs[0])
    if not positives.any():
        return [page.paragraph("No picture shows any class: nothing can be said of any.")]
    aps = {r.name: r.counted.streams["fused"].average_precision for r in runs}
    bars, panels = _best_and_worst(aps[run.name], MOST_BARS), _best_and_worst(aps[run.name], MOST_PANELS)
    curves = {r.name: [_curve(r, c) for c in panels] for r in runs}
    shown = {"AP": "AP_fused", "11-point AP": "AP_11_point", "P": "precision", "R": "recall", "F1": "F1"}
    if run.config.top_n:
        shown = {"AP global": "AP_global", "AP local": "AP_local"} | shown
    rows = class_rows(run.counted, run.classes)
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = sorted(rows, key=lambda row: -row["positives"])[:MOST_ROWS]
    table = page.table(
        ["class", "positives", "predicted", *shown],
        [
            [
                row["class"],
                *(str(row[key]) for key in ("positives", "predicted")),
                *(percent(row[key]) for key in shown.values()),
            ]
            for row in rows
        ],
    )
    return [
        page.figures(
            [
                page.picture(
                    plot_class_ap(
                        [run.classes[c] for c in bars],
                        {name: ap[bars] for name, ap in aps.items()},
                        positives[bars],
                    ),
                    "svg+xml",
                    "Average precision of each class; in brackets how many pictures show it"
                    + _halves(len(bars), positives),
                ),
                page.picture(
                    plot_precision_recall([run.classes[c] for c in panels], aps[run.name][panels], curves),
                    "svg+xml",
                    "Precision over recall, by class, with its average precision"
                    + _halves(len(panels), positives),
                ),
            ]
        ),
        page.folded("All numbers of all classes", table)
        if left_out <= 0
        else page.folded(f"All numbers of the {MOST_ROWS} classes that most pictures show", table),
    ]


def _best_and_worst(ap: Array, most: int) -> Array:
    """The classes whose AP is known, the best first; of more than `most`, only the best and the worst `most` / 2."""
    order = np.argsort(-ap, kind="stable")[: int((~np.isnan(ap)).sum())]  # NaN comes last
    return order if len(order) <= most else np.concatenate([order[: most // 2], order[-(most // 2) :]])


def _halves(shown: int, positives: Array) -> str:
    return f": the {shown // 2} best and the {shown // 2} worst" if shown < (positives > 0).sum() else ""


def _curve(run: EvaluatedRun, c: int) -> tuple[Array, Array]:
    """Precision and recall of a class."""
    labels, weights = run.predictions.truth(classes=slice(c, c + 1))
    probs = run.predictions.stream("fused", classes=slice(c, c + 1))
    precision, recall, _ = metrics.precision_recall_curve(labels[:, 0], probs[:, 0], weights[:, 0])
    return precision, recall


def confusion_parts(run: EvaluatedRun) -> list[Html]:
    """Which classes are claimed without being in the picture, and which classes the picture shows instead."""
    chosen, claimed, pictures = count_confusions(run.predictions, run.thresholds, MOST_CONFUSED)
    if not claimed.any():
        return [page.paragraph("No class is claimed where it is not.")]
    names = [run.classes[c] for c in chosen]
    # Sorted by count and not by rate: otherwise pairs with one picture out of one would come first.
    pairs = np.argwhere(claimed > 0)
    pairs = pairs[np.argsort(-claimed[pairs[:, 0], pairs[:, 1]], kind="stable")][:12]
    rows = [
        [
            names[a],
            names[b],
            f"{claimed[a, b]} of {pictures[a, b]}",
            percent(claimed[a, b] / pictures[a, b]),
        ]
        for a, b in pairs
    ]
    among = f" Among the {len(chosen)} classes that most false claims have to do with." * (
        len(chosen) < len(run.classes)
    )
    return [
        page.paragraph(
            "Beside which class another one is claimed that is not in the picture: how often, of all pictures that"
            f" show the one and not the other.{among}"
        ),
        page.figures(
            [
                page.picture(
                    plot_confusions(names, claimed, pictures),
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
    versions = read_environment(run.folder)
    origin = read_origin(run.folder)
    imported = [page.folded("Imported from", page.table(["", ""], list(origin.items())))] if origin else []
    title = "Options; those of training are not known" if origin else "Options"
    return [
        *imported,
        page.folded(title, page.table(["option", "value"], options)),
        page.folded("Versions", page.table(["package", "version"], list(versions.items()))),
    ]
