"""Evaluate: `python -m mcar_tf.evaluate --run DIR`. A run and a split in, every metric of the paper out."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mcar_tf.config import FitConfig, change_without_training
from mcar_tf.evaluating.columns import streams_of
from mcar_tf.evaluating.looks import count_looks
from mcar_tf.evaluating.metrics_file import write_metrics
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.evaluating.predictions_file import write_predictions
from mcar_tf.evaluating.results import class_rows, count, evaluate_localization, summarize
from mcar_tf.evaluating.tables import table_lines, write_class_table
from mcar_tf.model_options import UNTRAINED, WITHOUT_TRAINING, ModelOptions
from mcar_tf.runs.folder import command_on, own_results, read_run_config
from mcar_tf.runs.splits import find_split, has_labels
from mcar_tf.runs.thresholds import Thresholds, same_for_all
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.manifest import MANIFEST, Manifest, Portion, Split, load_manifest
from pipelines.words import counted, next_steps, spell

if TYPE_CHECKING:
    from mcar_tf.runs.loading import Run

DATA, METRICS, OUTPUT = "data", "metrics", "output"


@dataclasses.dataclass(kw_only=True)
class EvaluateOptions(ModelOptions):
    """The options of `evaluate`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=DATA)
    split: str | None = option(None, "Split to evaluate on (default: the run's eval-split).", group=DATA)
    dataset: str | None = option(None, "Prepared set to evaluate on, of the same classes (default: the run's).",
                                 group=DATA)
    data_dir: Path | None = option(None, "Folder of the prepared sets (default: the one that the run used).",
                                   group=DATA)
    difficult: Literal["positive", "ignore", "negative"] = option(
        "ignore", "How to count a class that an image shows only as objects marked difficult (VOC).", group=DATA)

    selection: Literal["top", "bottom", "random"] = option(
        "top", "Classes whose maps become regions: the most probable, the least probable, or random ones (Table V).",
        group=UNTRAINED)
    flip: bool = option(False, "Average the answers for each image and its mirror image.", group=UNTRAINED)
    batch_size: int | None = option(None, "Images per batch (default: the run's).", group=UNTRAINED)

    threshold: float = option(0.6, "Smallest probability at which a class is predicted.", group=METRICS)
    calibrated: bool = option(False, "Use each class's own threshold, as `calibrate` found it, in place of"
                              " --threshold.", group=METRICS)
    top3_min_prob: float | None = option(None, "Leave out those of the top three that are below this probability"
                                         " (the authors' code: 0.6; default: leave out none, as the paper).",
                                         group=METRICS)

    steadiness: bool = option(False, "Also measure how often answers change when a picture is rounded to whole"
                              " levels, resized by Pillow, or saved again as a JPEG of quality 90.", group=METRICS)

    out_dir: Path | None = option(None, "Folder for the results (default: the run folder if the run is finished and"
                                  " evaluated unchanged on its eval-split, else <run>/evaluations/<what differs>).",
                                  group=OUTPUT)
    voc_results: Literal["comp1", "comp2"] | None = option(
        None, "Also write Pascal VOC's result files for this competition, for its evaluation server.", group=OUTPUT)
    coco_results: bool = option(False, "Also write the regions as COCO detection results.", group=OUTPUT)
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        EvaluateOptions,
        argv,
        module="mcar_tf.evaluate",
        description="Every metric of the paper for a run's global stream, local stream and both fused.",
    )
    config = read_run_config(options.run)
    # Check all options before TensorFlow is loaded.
    manifest, split_name, split = load_set(options, config)
    check_options(options, manifest, split_name, split)
    change_without_training(config, options.changes)
    folder = options.out_dir or results_folder(options, config, manifest, split_name)

    load_tensorflow()
    from mcar_tf.evaluating.predicting import predict_split
    from mcar_tf.runs.device import say_device
    from mcar_tf.runs.loading import check_classes, load_run

    run = load_run(
        options.run,
        checkpoint=options.checkpoint,
        selection=options.selection,
        batch_size=options.batch_size,
        **options.changes,
    )
    check_classes(run, manifest)
    say_device(
        run.config.precision,
        f"{counted(split.examples, 'picture')} of {split_name}",
        counted(len(run.classes), "class"),
        str(options.run),
    )
    decision = (
        calibrated_thresholds(run) if options.calibrated else same_for_all(run.classes, options.threshold)
    )
    predictions = predict_split(
        run.model,
        split,
        batch_size=run.config.batch_size,
        difficult=options.difficult,
        flip=options.flip,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.npz", predictions, run.classes, split_name, manifest.content_hash)
    if has_labels(split):
        steadiness = ask_variants(options, run, split, decision)
        write_results(
            folder,
            split_name,
            split,
            run,
            predictions,
            decision,
            options.top3_min_prob,
            steadiness,
            options.flip,
        )
    written = write_submissions(options, folder, manifest, split_name, split, predictions)
    print(f"\nwritten to {folder}: {', '.join(sorted({*written, 'predictions.npz'}))}")
    report = (command_on(options.run, "report"), "a page of curves, errors and regions")
    calibrate = (command_on(options.run, "calibrate"), "a threshold for each class, chosen on other pictures")
    print(next_steps(report, *([] if run.decision.calibrated else [calibrate])))


def load_set(options: EvaluateOptions, config: FitConfig) -> tuple[Manifest, str, Split | Portion]:
    """The manifest of the prepared set, the split's name and the split."""
    manifest = load_manifest(options.data_dir or config.data_dir, options.dataset or config.dataset)
    if manifest.name != config.dataset:
        config = dataclasses.replace(config, val_fraction=0.0, fold=None)  # those are of the run's own set
    name = options.split or config.eval_split
    return manifest, name, find_split(config, manifest, name)


def check_options(
    options: EvaluateOptions, manifest: Manifest, split_name: str, split: Split | Portion
) -> None:
    """Refuse numbers that are out of range, and result files that can't be made for this set."""
    from pipelines.readers.classes import COCO_CATEGORIES, VOC_CLASSES

    for name in ("threshold", "top3_min_prob"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"`{spell(name)}` must lie in [0, 1]. Received: {value}")
    if options.batch_size is not None and options.batch_size < 1:
        raise ValueError(f"`batch-size` must be at least 1. Received: {options.batch_size}")
    if not has_labels(split) and not (options.voc_results or options.coco_results):
        raise ValueError(
            f"The split {split_name} of {manifest.name} has no labels, so nothing can be measured on it."
            " --voc-results comp2 writes the files that the evaluation server takes."
        )
    if options.steadiness and not has_labels(split):
        raise ValueError(
            f"--steadiness goes into the metrics, which {split_name} of {manifest.name} has none of."
        )
    if options.steadiness and options.flip:
        raise ValueError("--steadiness asks the model about each picture as it is. Leave out --flip.")
    if options.voc_results and manifest.classes != VOC_CLASSES:
        raise ValueError(f"--voc-results needs a set of Pascal VOC's 20 classes. {manifest.name} has others.")
    if options.coco_results and manifest.classes != tuple(COCO_CATEGORIES.values()):
        raise ValueError(f"--coco-results needs a set of COCO's 80 classes. {manifest.name} has others.")


def results_folder(options: EvaluateOptions, config: FitConfig, manifest: Manifest, split_name: str) -> Path:
    """The folder for results: the run folder if set, split and options are the run's, else one named by what differs.

    The run's own set in another folder is another one if it has other pictures or labels.
    """
    differs = (
        [split_name] if options.dataset in (None, config.dataset) else [f"{options.dataset}-{split_name}"]
    )
    own = config.data_dir / manifest.name / MANIFEST
    if options.data_dir and manifest.name == config.dataset and own.is_file():
        here = load_manifest(config.data_dir, config.dataset, check_files=False)
        if here.content_hash != manifest.content_hash:
            differs.append(f"data_dir={options.data_dir.resolve().name}")
    for name in WITHOUT_TRAINING:
        if getattr(options, name) not in (None, getattr(config, name)):
            value = getattr(options, name)
            value = "-".join(map(str, value)) if isinstance(value, list) else value
            differs.append(f"{name}={value}")
    usual = {"checkpoint": "last", "selection": "top", "difficult": "ignore", "top3_min_prob": None}
    differs += [f"{n}={getattr(options, n)}" for n, value in usual.items() if getattr(options, n) != value]
    differs += [name for name in ("flip", "calibrated") if getattr(options, name)]
    if not options.calibrated and options.threshold != 0.6:
        differs.append(f"threshold={options.threshold}")
    if differs == [config.eval_split]:
        return own_results(options.run, config)
    return options.run / "evaluations" / ",".join(differs)


def calibrated_thresholds(run: "Run") -> Thresholds:
    """The thresholds that `calibrate` chose for exactly this model; an error if there are none."""
    if not run.decision.calibrated:
        raise ValueError(
            f"--calibrated needs thresholds for the model as it is asked for: {command_on(run.path, 'calibrate')}"
            f" chooses them. What there is: {run.decision.said}."
        )
    return run.decision


def ask_variants(
    options: EvaluateOptions, run: "Run", split: Split | Portion, decision: Thresholds
) -> dict[str, dict[str, float]]:
    """The measurements of `--steadiness`; empty if the option was not given."""
    if not options.steadiness:
        return {}
    from mcar_tf.evaluating.steadiness import measure_steadiness
    from pipelines.variants import make_variants_dataset
    from pipelines.verify import naming_shards

    batches = make_variants_dataset(
        split.files, image_size=run.config.image_size, batch_size=run.config.batch_size
    )
    with naming_shards(split.files):
        return measure_steadiness(run.model, batches, decision.values, images=split.examples)


def write_results(
    folder: Path,
    split_name: str,
    split: Split | Portion,
    run: "Run",
    predictions: Predictions,
    decision: Thresholds,
    top3_min_prob: float | None,
    steadiness: dict[str, dict[str, float]],
    flipped: bool,
) -> None:
    """Compute, print and write `metrics.json` and `per_class.csv`."""
    from pipelines.input_pipeline import read_boxes

    counted = count(predictions, decision.values, top3_min_prob)
    metrics, rows = summarize(counted), class_rows(counted, run.classes)
    if predictions.boxes.shape[1]:
        localization = evaluate_localization(predictions, read_boxes(split.files))
        if localization["objects"]:
            metrics["localization"] = localization
    if steadiness:
        metrics["steadiness"] = steadiness
    rules = run.config.look_band, run.config.look_doubt
    if any(rules) and not flipped:  # the mirror images have looks of their own
        looks = count_looks(predictions.global_probs, predictions.box_classes, *rules)
        metrics["mean_looks"] = float(looks.mean())
        print(f"looks again at {looks.mean():.2f} regions of a picture")
    write_metrics(folder / "metrics.json", split_name, metrics)
    write_class_table(folder / "per_class.csv", rows)
    lines = table_lines(
        metrics,
        rows,
        streams=streams_of(run.config.top_n),
        decided_by="calibrated thresholds" if decision.calibrated else f"all, p >= {decision.values[0]:g}",
        top3_min_prob=top3_min_prob,
    )
    if steadiness:
        from mcar_tf.evaluating.steadiness import steadiness_lines

        lines += ["", *steadiness_lines(steadiness)]
    print("\n".join(lines))
    print(f"\nthresholds: {decision.said}")


def write_submissions(
    options: EvaluateOptions,
    folder: Path,
    manifest: Manifest,
    split_name: str,
    split: Split | Portion,
    predictions: "Predictions",
) -> list[str]:
    """Write files for evaluation servers; return the names of all result files that are in the folder now."""
    from mcar_tf.evaluating.submission import coco_results, write_voc_results
    from pipelines.input_pipeline import read_samples
    from pipelines.readers.classes import COCO_CATEGORIES

    written = ["metrics.json", "per_class.csv"] if has_labels(split) else []
    if options.voc_results:
        year = "VOC2007" if "2007" in manifest.name else "VOC2012"
        # The name of the image set in VOC's development kit.
        image_set = {"train": "trainval"}.get(split_name, split_name.removeprefix("devkit_"))
        write_voc_results(
            folder / "results" / year,
            predictions.ids,
            manifest.classes,
            predictions.probs,
            image_set,
            options.voc_results,
        )
        written.append(f"results/{year}/Main/{options.voc_results}_cls_{image_set}_*.txt")
    if options.coco_results:
        results = coco_results(
            predictions.ids,
            predictions.boxes,
            predictions.box_classes,
            predictions.box_probs,
            {sample.id: (p.height, p.width) for sample, p in read_samples(split.files)},
            list(COCO_CATEGORIES),
        )
        write_text(folder / "coco_results.json", json.dumps(results) + "\n")
        written.append("coco_results.json")
    return written


if __name__ == "__main__":
    run_command(main)
