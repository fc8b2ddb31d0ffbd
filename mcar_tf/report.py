"""Report: `python -m mcar_tf.report --run DIR`. An evaluated run in, `report.html` out, to be opened anywhere."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mcar_tf import metrics
from mcar_tf.config import FitConfig, config_to_yaml
from mcar_tf.evaluating import columns
from mcar_tf.reporting import drawing as visualize
from mcar_tf.reporting import page as report_page
from mcar_tf.reporting.page import Html
from mcar_tf.runs.folder import command_on, own_results, read_run_config
from mcar_tf.runs.splits import find_split
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.manifest import load_manifest
from pipelines.words import percent

if TYPE_CHECKING:
    from mcar_tf.evaluating.evaluation import Predictions

Array = npt.NDArray[Any]

MAX_SIDE = 640  # px of a picture in the report
# Pictures wanted from the set, by what they are for: rows of the predictions.
Selection = dict[str, list[int]]


@dataclasses.dataclass
class ReportOptions:
    """What `report` can be told."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder; evaluate must have been run on it.")
    compare: list[Path] = option([], "Other runs on the same pictures, the baseline first (default: <run>/baseline,"
                                 " where it has been evaluated).")
    data_dir: Path | None = option(None, "Where prepared sets lie (null: where they lay for the run).")
    pictures: int = option(12, "Pictures in each gallery.")
    threshold: float = option(0.6, "Probability from which on a class counts as predicted.")
    seed: int = option(0, "Decides which pictures the gallery shows.")
    out: Path | None = option(None, "The file (null: <run>/report.html).")
    # fmt: on


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """A run folder's content, as far as the report shows it.

    Attributes:
        name: for people, different for each run in a report.
        folder: the run folder.
        config: what it was trained with.
        classes: C names.
        split: that the predictions are of.
        predictions: of `predictions.npz`.
        metrics: of these, by stream.
        history: rows of `history.csv`, numbers already.
        localization: of `metrics.json`, or None.
        calibration: content of `thresholds.json`, or None.
    """

    name: str
    folder: Path
    config: FitConfig
    classes: tuple[str, ...]
    split: str
    predictions: "Predictions"
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    localization: dict[str, Any] | None
    calibration: dict[str, Any] | None


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        ReportOptions,
        argv,
        module="mcar_tf.report",
        description="One page about a run: how good it is, where it fails, what it looked at; beside other runs.",
    )
    if options.pictures < 1:
        raise ValueError(f"`pictures` must be at least 1. Received: {options.pictures}")
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"`threshold` must lie in [0, 1]. Received: {options.threshold}")
    folders = [options.run, *options.compare]
    baseline = options.run / "baseline"
    if not options.compare and (baseline / "predictions.npz").is_file():
        folders.append(baseline)
    names = name_runs(folders)
    runs = [read_evaluated_run(f, name, options.threshold) for f, name in zip(folders, names, strict=True)]
    check_comparable(runs)
    run = runs[0]

    selection = select_pictures(run, options.pictures, options.threshold, options.seed)
    images = read_images(run, options, {row for rows in selection.values() for row in rows})
    content = build_page(runs, selection, images, options)
    out = options.out or options.run / "report.html"
    write_text(out, content)
    print(f"written: {out} ({len(content) / 2**20:.1f} MB; open it in a browser)")


# ------------------------------------------------------------------ what the report is about


def name_runs(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as many as tell them apart.

    Raises:
        ValueError: a folder is there twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ValueError("A run can't be compared with itself: a folder is given twice.")
    count = 1
    while len({path[-count:] for path in parts}) < len(parts):
        count += 1
    return ["/".join(path[-count:]) for path in parts]


def read_evaluated_run(folder: Path, name: str, threshold: float) -> EvaluatedRun:
    """Read a run folder that `evaluate` has filled.

    Raises:
        FileNotFoundError: no run there, or not evaluated yet.
        ValueError: the split that it was evaluated on has no labels.
    """
    config = read_run_config(folder)
    results = own_results(folder, config)
    if not (results / "predictions.npz").is_file():
        raise FileNotFoundError(
            f"{results} holds no predictions.npz yet. Run first: {command_on(folder, 'evaluate')}"
        )
    load_tensorflow()
    from mcar_tf.evaluating.evaluation import evaluate_predictions, read_predictions

    predictions, classes, split = read_predictions(results / "predictions.npz")
    if not predictions.weights.any():
        raise ValueError(f"{folder} was evaluated on {split}, which has no labels: nothing can be reported.")
    found = evaluate_predictions(predictions, threshold)
    written = (_read_json(results / "metrics.json") or {}).get(split, {})
    before, now = written.get("fused", {}).get("mAP"), found["fused"]["mAP"]
    same = (
        math.isnan(now) if before is None else abs(now - before) < 1e-9
    )  # of another machine, the last digit
    if not same:
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
        metrics=found,
        history=_read_history(folder / "history.csv"),
        localization=written.get("localization"),
        calibration=_read_json(folder / "thresholds.json"),
    )


def check_comparable(runs: Sequence[EvaluatedRun]) -> None:
    """Refuse runs on other classes or pictures than the first one's."""
    first = runs[0]
    for run in runs[1:]:
        if run.classes != first.classes or not np.array_equal(run.predictions.ids, first.predictions.ids):
            raise ValueError(
                f"{run.folder} was evaluated on other pictures or classes ({run.config.dataset}, {run.split}) than"
                f" {first.folder} ({first.config.dataset}, {first.split}): they can't be compared."
            )


def select_pictures(run: EvaluatedRun, count: int, threshold: float, seed: int) -> Selection:
    """Which pictures to show, as rows of the predictions.

    Returns:
        `looked_at`: drawn at random among those with a region to show. `missed`: whose least probable class is in
        the picture; `claimed`: whose most probable class is not; both at the threshold, the worst first, one error a
        picture. `localized`: the one with the clearest region, if any has one.
    """
    predictions = run.predictions
    counts, shown = predictions.weights > 0, predictions.labels > 0
    probs = predictions.probs
    lowest = np.where(shown & counts, probs, np.inf).min(axis=1)
    highest = np.where(~shown & counts, probs, -np.inf).max(axis=1)
    missed = [int(row) for row in np.argsort(lowest, kind="stable") if lowest[row] < threshold]
    claimed = [int(row) for row in np.argsort(-highest, kind="stable") if highest[row] >= threshold]
    with_region = [row for row in range(len(predictions)) if regions_of(run, row)]
    drawn = np.random.default_rng(seed).permutation(with_region)[:count]
    return {
        "looked_at": [int(row) for row in drawn],
        "missed": missed[:count],
        "claimed": claimed[:count],
        "localized": [max(with_region, key=lambda row: _clarity(run, row))] if with_region else [],
    }


def regions_of(run: EvaluatedRun, row: int) -> list[visualize.Region]:
    """The regions of a picture that the paper would show."""
    names = ("global_probs", "probs", "boxes", "box_classes")
    outputs = {name: getattr(run.predictions, name)[row] for name in names}
    return visualize.select_regions(outputs, run.classes)


def read_images(run: EvaluatedRun, options: ReportOptions, rows: set[int]) -> dict[int, Array]:
    """Pictures at their own resolution, upright: row of the predictions -> (H, W, 3) uint8."""
    import tensorflow as tf

    from pipelines.decode import decode, turn_upright
    from pipelines.input_pipeline import read_samples

    manifest = load_manifest(options.data_dir or run.config.data_dir, run.config.dataset)
    wanted = {str(run.predictions.ids[row]): row for row in rows}
    images: dict[int, Array] = {}
    for sample, picture in read_samples(find_split(run.config, manifest, run.split).files):
        if len(images) == len(wanted):
            break
        if sample.id in wanted:
            pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
            images[wanted[sample.id]] = pixels.numpy()
    if len(images) < len(wanted):
        raise ValueError(
            f"{manifest.name} has been built anew since the run was evaluated: pictures are gone."
            f" Run again: {command_on(run.folder, 'evaluate')}"
        )
    return images


def find_class_map(run: EvaluatedRun, image: Array, class_index: int) -> Array:
    """The class activation map of a picture after the sigmoid, (h, w) in [0, 1]."""
    import tensorflow as tf

    from mcar_tf.runs.loading import load_run

    model = load_run(run.folder).model
    size = run.config.image_size
    resized = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
    features, _ = model.global_pass(resized[tf.newaxis], training=False)
    return tf.sigmoid(model.classifier.class_activation_maps(features, [[class_index]]))[0, 0].numpy()


# ------------------------------------------------------------------ the page


def build_page(
    runs: Sequence[EvaluatedRun], selection: Selection, images: Mapping[int, Array], options: ReportOptions
) -> str:
    """All of the report."""
    run = runs[0]
    return report_page.page(
        f"{run.folder.name}: {run.config.dataset}, {run.split}",
        summary_parts(runs, options.threshold),
        [
            ("Beside other runs", comparison_parts(runs)),
            ("Training", training_parts(runs)),
            ("Classes", class_parts(runs, options.threshold)),
            ("What it confuses", confusion_parts(run, options.threshold)),
            ("Worst errors", error_parts(run, selection, images)),
            ("Where it looks", gallery_parts(run, selection, images)),
            ("How it was made", provenance_parts(run)),
        ],
    )


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
    unknown = [run.classes[c] for c in np.flatnonzero(~_has_positives(run))]
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
        report_page.paragraph(
            f"{run.config.backbone}, {run.config.image_size} px, {regions}; measured on"
            f" {len(run.predictions)} pictures of {len(run.classes)} classes."
        ),
        report_page.cards(named),
        report_page.bullets(notes),
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
    parts = [report_page.table(["run and stream", *columns.titles(shown)], rows)]
    if differing:
        parts += [
            report_page.heading("Options that differ"),
            report_page.table(["option", *(run.name for run in runs)], differing),
        ]
    return parts


def training_parts(runs: Sequence[EvaluatedRun]) -> list[Html]:
    """Curves of the losses and of mAP on the validation split."""
    from mcar_tf.reporting.figures import plot_losses, plot_validation_map

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
        plots.append(report_page.picture(plot_losses(histories), "svg+xml", "Losses by epoch"))
    if any("val_mAP_global" in row for rows in histories.values() for row in rows):
        caption = "mAP on the validation split by epoch"
        plots.append(report_page.picture(plot_validation_map(histories), "svg+xml", caption))
    return [report_page.figures(plots)] if plots else []


def class_parts(runs: Sequence[EvaluatedRun], threshold: float) -> list[Html]:
    """AP of each class against the other runs', precision over recall, and all numbers."""
    from mcar_tf.evaluating.evaluation import evaluate_classes
    from mcar_tf.reporting.figures import plot_class_ap, plot_precision_recall

    run, truth = runs[0], runs[0].predictions
    if not _has_positives(run).any():
        return [report_page.paragraph("No picture shows any class: nothing can be said of any.")]
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
        report_page.figures(
            [
                report_page.picture(
                    plot_class_ap(run.classes, aps, positives),
                    "svg+xml",
                    "Average precision of each class; in brackets how many pictures show it",
                ),
                report_page.picture(
                    plot_precision_recall(run.classes, truth.labels, probs, truth.weights),
                    "svg+xml",
                    "Precision over recall, by class, with its average precision"
                    + (": the ten best and the ten worst" if len(run.classes) > 20 else ""),
                ),
            ]
        ),
        report_page.folded("All numbers of all classes", report_page.table(header, rows)),
    ]


def confusion_parts(run: EvaluatedRun, threshold: float) -> list[Html]:
    """What is claimed without being there, beside what."""
    predictions = run.predictions
    claimed, pictures = metrics.count_false_claims(
        predictions.labels, predictions.probs >= threshold, predictions.weights
    )
    if not claimed.any():
        return [report_page.paragraph("No class is claimed where it is not.")]
    from mcar_tf.reporting.figures import plot_confusions

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
        report_page.paragraph(
            "Beside which class another one is claimed that is not in the picture: how often, of all pictures that"
            " show the one and not the other."
        ),
        report_page.figures(
            [
                report_page.picture(
                    plot_confusions(run.classes, claimed, pictures),
                    "svg+xml",
                    "False claims of the classes that are most often part of one. White: too few pictures to tell"
                    " (fewer than 5)",
                ),
                report_page.table(["in the picture", "claimed", "pictures", "%"], rows),
            ]
        ),
    ]


def error_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """The worst misses and the worst false claims."""
    predictions = run.predictions
    counts, shown = predictions.weights > 0, predictions.labels > 0
    parts = []
    for kind, title in (
        ("Missed", "In the picture, and least believed"),
        ("Claimed", "Not in the picture, and most believed"),
    ):
        items = []
        for row in selection[kind.lower()]:
            if kind == "Missed":
                c = int(np.where(shown[row] & counts[row], predictions.probs[row], np.inf).argmin())
            else:
                c = int(np.where(~shown[row] & counts[row], predictions.probs[row], -np.inf).argmax())
            caption = f"{kind} {run.classes[c]}, {_prob(predictions.probs[row, c])}. {_truth(run, row)}"
            items.append(_region_picture(run, row, images[row], caption))
        if items:
            parts += [report_page.heading(title), report_page.gallery(items)]
    return parts or [report_page.paragraph("None: at this threshold every class of every picture is right.")]


def gallery_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """Pictures with their regions (Fig. 6), and how one region was found (Fig. 2)."""
    if not run.config.top_n:
        return []
    parts = localization_parts(run.localization) if run.localization else []
    if not selection["looked_at"]:
        return [
            *parts,
            report_page.paragraph(
                "No picture has a region whose class has a global probability > 0.1 and a fused one > 0.6."
            ),
        ]
    parts += [
        report_page.paragraph(
            "Regions whose class has a global probability > 0.1 and a fused one > 0.6, titled “class: global /"
            " fused”, in pictures drawn at random among those that have any."
        ),
        report_page.gallery(
            _region_picture(run, row, images[row], _truth(run, row)) for row in selection["looked_at"]
        ),
    ]
    row = selection["localized"][0]
    region = max(regions_of(run, row), key=lambda region: _region_clarity(run, row, region))
    class_map = find_class_map(run, images[row], run.classes.index(region.class_name))
    drawn = visualize.draw_localization(
        images[row], class_map, region.box, region.title, run.config.tau, run.config.image_size
    )
    caption = (
        f"Over the picture the activation map of {region.class_name} (red is high); above and beside it the largest"
        f" value of each column and row, scaled to 0 to 1. The region is where both reach {run.config.tau:g} (dashed)"
        f" about their peaks. {run.predictions.ids[row]}"
    )
    return [
        *parts,
        report_page.heading("How a region is found"),
        report_page.figures([report_page.picture(visualize.encode_png(drawn), "png", caption)]),
    ]


def localization_parts(found: Mapping[str, Any]) -> list[Html]:
    """How well regions find objects, beside what looking nowhere finds."""
    keys = ("pointing_accuracy", "objects_covered_30", "objects_covered_50")
    rows = [
        [name, *(percent(part[key]) for key in keys)]
        for name, part in (("regions", found), ("the whole picture", found["whole_image"]))
    ]
    return [
        report_page.paragraph(
            f"No box was trained on. Pointing: of {found['regions']} regions whose class is in the picture, those"
            f" with their centre in an object of it. IoU: of {found['objects']} objects, those that overlap so much"
            " with the region of their class."
        ),
        report_page.table(["%", "pointing", "IoU ≥ 0.3", "IoU ≥ 0.5"], rows),
    ]


def provenance_parts(run: EvaluatedRun) -> list[Html]:
    """The options and versions that made the run."""
    options = [line.split(":", 1) for line in config_to_yaml(run.config).splitlines() if ":" in line]
    versions = _read_json(run.folder / "environment.json") or {}
    return [
        report_page.folded("Options", report_page.table(["option", "value"], options)),
        report_page.folded("Versions", report_page.table(["package", "version"], list(versions.items()))),
    ]


def _prob(prob: float) -> str:
    return "p < 0.01" if prob < 0.01 else f"p = {prob:.2f}"


def _region_picture(run: EvaluatedRun, row: int, image: Array, caption: str) -> Html:
    from PIL import Image

    regions = regions_of(run, row)
    drawn = Image.fromarray(
        visualize.draw_regions(
            visualize.enlarge(image), [region.box for region in regions], [region.title for region in regions]
        )
    )
    drawn.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=88)
    return report_page.picture(file.getvalue(), "jpeg", f"{caption} {run.predictions.ids[row]}")


def _truth(run: EvaluatedRun, row: int) -> str:
    shown = [run.classes[c] for c in np.flatnonzero(run.predictions.labels[row] > 0)]
    return f"In the picture: {', '.join(shown) or 'none of the classes'}."


def _has_positives(run: EvaluatedRun) -> Array:
    return np.any((run.predictions.labels > 0) & (run.predictions.weights > 0), axis=0)


def _clarity(run: EvaluatedRun, row: int) -> float:
    return max(_region_clarity(run, row, region) for region in regions_of(run, row))


def _region_clarity(run: EvaluatedRun, row: int, region: visualize.Region) -> float:
    """How well a region explains the method: of a class that is there, sure, neither tiny nor the whole image."""
    ymin, xmin, ymax, xmax = region.box
    is_there = run.predictions.labels[row, run.classes.index(region.class_name)] > 0
    return float(is_there) + region.global_prob - abs((ymax - ymin) * (xmax - xmin) - 0.25)


def _read_history(path: Path) -> list[dict[str, float]]:
    """Rows of `history.csv`; empty fields are left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


if __name__ == "__main__":
    run_command(main)
