"""Predict: `python -m mcar_tf.predict --run DIR --images PHOTOS`. Image files in; labels, boxes and pictures out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mcar_tf.answer_options import ANSWERS, AnswerOptions
from mcar_tf.evaluating.answer_files import write_answers
from mcar_tf.evaluating.answers import find_images
from mcar_tf.model_options import ModelOptions
from mcar_tf.runs.folder import command_on
from mcar_tf.runs.thresholds import same_for_all
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import locked
from pipelines.words import counted, listed, next_steps, printable

WHAT = "what"


@dataclasses.dataclass(kw_only=True)
class PredictOptions(ModelOptions, AnswerOptions):
    """The options of `predict`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=WHAT)
    images: list[str] = option(dataclasses.MISSING, "Image files, folders (searched with all folders inside them)"
                               " or globs.", group=WHAT)
    out_dir: Path | None = option(None, "Folder for the results (default: <run>/predictions).", group=ANSWERS)
    draw: bool = option(False, "Also draw each image with its labelled regions, its longer side reduced to 4,096 px.",
                        group=ANSWERS)
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        PredictOptions,
        argv,
        module="mcar_tf.predict",
        description="What is in these images, and where the model looked.",
    )
    options.check_answers()
    files = find_images(options.images)

    load_tensorflow()
    from mcar_tf.evaluating.photos import predict_files
    from mcar_tf.runs.device import say_device
    from mcar_tf.runs.loading import load_run

    run = load_run(
        options.run,
        checkpoint=options.checkpoint,
        **options.changes,
    )
    say_device(
        run.config.precision,
        counted(len(files), "picture"),
        counted(len(run.classes), "class"),
        str(options.run),
    )
    decision = run.decision if options.threshold is None else same_for_all(run.classes, options.threshold)
    folder = options.out_dir or run.path / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    looks: list[int] = []
    predictions = predict_files(
        run.model,
        files,
        run.classes,
        unreadable,
        image_size=run.config.image_size,
        batch_size=options.batch_size,
        threshold=decision.values,
        all_classes=options.all_classes,
        looks=looks,
    )
    if options.draw:
        from mcar_tf.reporting.drawn_answers import draw_each

        predictions = draw_each(predictions, folder)
    path = folder / f"predictions.{options.format}"
    # Otherwise the folder could hold a mixture of the pictures of two commands.
    with locked(folder / ".lock", f"{folder} is being filled by another predict. Wait, or give --out-dir."):
        first, count = write_answers(path, predictions, options.format, options.all_classes)

    for prediction in first:
        present = [label for label in prediction["labels"] if label.get("present", True)]
        labels = listed(f"{label['class']} {label['prob']:.2f}" for label in present)
        print(f"{printable(prediction['image'])}: {labels or 'nothing above the threshold'}")
    if count > len(first):
        print(f"... and {count - len(first)} more")
    print(f"thresholds: {decision.said}")
    if run.config.look_band or run.config.look_doubt:
        print(f"looked again at {sum(looks) / max(len(looks), 1):.2f} regions of a picture")
    drawn = f", and {counted(count, 'picture')}" if options.draw else ""
    print(f"written to {path}{drawn}")
    if count:
        draw = (
            f"{command_on(options.run, 'predict')} --images IMAGES --draw",
            "the pictures with their regions",
        )
        export = (command_on(options.run, "export"), "files that answer the same on servers and phones")
        print(next_steps(*([] if options.draw else [draw]), export))
    if unreadable:
        raise ValueError(
            f"{len(unreadable)} of {len(files)} images could not be read:"
            f" {printable('; '.join(unreadable[:5]))}{'; ...' if len(unreadable) > 5 else ''}"
        )


if __name__ == "__main__":
    run_command(main)
