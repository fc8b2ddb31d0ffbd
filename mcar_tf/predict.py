"""Predict: `python -m mcar_tf.predict --run DIR --images PHOTOS`. Image files in; labels, boxes and pictures out."""

import csv
import dataclasses
import glob
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import written_whole

if TYPE_CHECKING:
    import numpy as np

    from mcar_tf.runs.loading import Run

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
CSV_COLUMNS = ("image", "class", "prob", "global_prob", "local_prob", "ymin", "xmin", "ymax", "xmax")
SHOWN = 20  # predictions that are printed too


@dataclasses.dataclass
class PredictOptions:
    """What `predict` can be told."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.")
    images: list[str] = option(dataclasses.MISSING, "Image files, folders (searched through) or globs.")
    out_dir: Path | None = option(None, "Where the results go (null: <run>/predictions).")
    format: Literal["jsonl", "csv"] = option("jsonl", "jsonl: an object an image; csv: a row a label.")
    draw: bool = option(False, "Also draw each image with its labelled regions, at its own resolution.")
    threshold: float | None = option(None, "Probability from which on a class is predicted (null: each class's own as"
                                     " calibrate found it, or 0.6).")
    checkpoint: Literal["last", "best"] = option("last", "Weights: the result of the run, or those that were best on"
                                                 " its validation split.")
    top_n: int | None = option(None, "Regions an image (null: the run's).")
    image_size: int | None = option(None, "Side that images are resized to, in px (null: the run's).")
    batch_size: int = option(16, "Images at a time.")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        PredictOptions,
        argv,
        module="mcar_tf.predict",
        description="What is in these images, and where the model looked.",
    )
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ValueError(f"`threshold` must lie in [0, 1]. Received: {options.threshold}")
    if options.batch_size < 1:
        raise ValueError(f"`batch-size` must be at least 1. Received: {options.batch_size}")
    files = find_images(options.images)

    load_tensorflow()
    from mcar_tf.runs.loading import load_run

    run = load_run(
        options.run, checkpoint=options.checkpoint, top_n=options.top_n, image_size=options.image_size
    )
    folder = options.out_dir or run.path / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    predictions = predict_files(run, files, options, unreadable)
    if options.draw:
        predictions = draw_each(predictions, folder)
    path = folder / f"predictions.{options.format}"
    first, count = write_predictions(path, predictions, options.format)

    for prediction in first:
        labels = ", ".join(f"{label['class']} {label['prob']:.2f}" for label in prediction["labels"])
        print(f"{prediction['image']}: {labels or 'nothing above the threshold'}")
    if count > len(first):
        print(f"... and {count - len(first)} more")
    drawn = f", and {count} pictures" if options.draw else ""
    print(f"written to {path}{drawn}")
    if unreadable:
        raise ValueError(
            f"{len(unreadable)} of {len(files)} images could not be read and were left out:"
            f" {'; '.join(unreadable[:5])}{'; ...' if len(unreadable) > 5 else ''}"
        )


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files that names, folders and globs stand for: each once, in the order given, folders' content by name.

    Raises:
        FileNotFoundError: one of them stands for no image.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not files:
                raise FileNotFoundError(f"The folder {path} holds no images ({', '.join(sorted(SUFFIXES))}).")
        elif path.is_file():
            files = [path]
        else:
            files = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
            if not files:
                raise FileNotFoundError(f"There is no image {pattern}.")
        found |= dict.fromkeys(files)
    return list(found)


def predict_files(
    run: "Run", files: Sequence[Path], options: PredictOptions, unreadable: list[str]
) -> Iterator[dict[str, Any]]:
    """What the model says of each file that can be read; names of the others go to `unreadable`."""
    import numpy as np
    import tensorflow as tf
    from tqdm import tqdm

    from mcar_tf.evaluating.evaluation import check_numbers
    from pipelines.decode import decode_and_resize, read_orientation

    size = run.config.image_size
    look = tf.function(
        lambda images: run.model(images, training=False),
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)],
    )
    threshold = (run.thresholds or 0.6) if options.threshold is None else options.threshold
    thresholds = np.broadcast_to(threshold, len(run.classes))
    with tqdm(total=len(files), desc="predicting", unit=" images", disable=None, leave=False) as bar:
        for start in range(0, len(files), options.batch_size):
            batch: list[tuple[Path, Any]] = []
            for file in files[start : start + options.batch_size]:
                try:
                    encoded = read_encoded(file)
                    batch.append((file, decode_and_resize(encoded, read_orientation(encoded), size)))
                except (OSError, ValueError, SyntaxError, tf.errors.OpError) as error:
                    reason = " ".join(str(error).split(" <_io")[0].split())[:80]
                    unreadable.append(f"{file} ({reason})")
                bar.update()
            if batch:
                outputs = {k: v.numpy() for k, v in look(tf.stack([image for _, image in batch])).items()}
                check_numbers(outputs, [str(file) for file, _ in batch])
                for i, (file, _) in enumerate(batch):
                    row = {name: value[i] for name, value in outputs.items()}
                    yield describe(file, row, run.classes, thresholds)


def read_encoded(file: Path) -> bytes:
    """A file as JPEG or PNG bytes: its own, or for another format a PNG of its first frame.

    Raises:
        OSError, ValueError, SyntaxError: what Pillow raises for what is no picture.
    """
    from PIL import Image

    encoded = file.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        if image.format in ("JPEG", "PNG"):
            return encoded
        png = io.BytesIO()
        image.convert("RGBA" if image.has_transparency_data else "RGB").save(png, "PNG")
        return png.getvalue()


def describe(
    file: Path, outputs: dict[str, "np.ndarray"], classes: Sequence[str], thresholds: "np.ndarray"
) -> dict[str, Any]:
    """The model's outputs for one image in words: labels above their threshold and all regions, likeliest first."""
    order = (-outputs["probs"]).argsort(kind="stable")
    labels = [
        {
            "class": classes[c],
            "prob": float(outputs["probs"][c]),
            "global_prob": float(outputs["global_probs"][c]),
            "local_prob": float(outputs["local_probs"][c]),
        }
        for c in order
        if outputs["probs"][c] >= thresholds[c]
    ]
    regions = [
        {
            "class": classes[c],
            "prob": float(outputs["probs"][c]),
            "global_prob": float(outputs["global_probs"][c]),
            "region_prob": float(prob),
            "box": [round(float(side), 6) for side in box],  # ymin xmin ymax xmax, fractions of the image
        }
        for box, c, prob in zip(outputs["boxes"], outputs["box_classes"], outputs["box_probs"], strict=True)
    ]
    return {"image": str(file), "labels": labels, "regions": regions}


def draw_each(predictions: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """The predictions as they come, each drawn into a numbered picture in `folder`."""
    for number, prediction in enumerate(predictions, start=1):
        file = Path(prediction["image"])
        draw(file, prediction, folder / f"{number:05d}-{file.stem}.png")
        yield prediction


def draw(file: Path, prediction: dict[str, Any], path: Path) -> None:
    """Draw the regions of the predicted classes that the global stream saw too (Fig. 6 and its rule).

    Predicted classes without such a region stand in a corner: none of the answer is missing from the picture.
    """
    import numpy as np
    from PIL import Image, ImageOps

    from mcar_tf.reporting.drawing import draw_regions, encode_png, enlarge

    predicted = {label["class"] for label in prediction["labels"]}
    shown = [r for r in prediction["regions"] if r["class"] in predicted and r["global_prob"] > 0.1]
    titles, boxed = [_title(region) for region in shown], {region["class"] for region in shown}
    captions = [_title(label) for label in prediction["labels"] if label["class"] not in boxed]
    with Image.open(file) as image:
        pixels = enlarge(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    drawn = draw_regions(pixels, [region["box"] for region in shown], titles, captions=captions)
    path.write_bytes(encode_png(drawn))


def _title(found: dict[str, Any]) -> str:
    return f"{found['class']}: {found['global_prob']:.2f} / {found['prob']:.2f}"


def write_predictions(
    path: Path, predictions: Iterable[dict[str, Any]], form: Literal["jsonl", "csv"]
) -> tuple[list[dict[str, Any]], int]:
    """Write each prediction as it comes; `path` is there once all are, until then `partial-...-NAME`, which an
    interruption leaves behind.

    jsonl: an object a line. csv: a row a label, with its region where it has one; an image without labels has a row
    without a class.

    Returns:
        The first `SHOWN` predictions, and how many there were.
    """
    first: list[dict[str, Any]] = []
    count = 0
    # A file's name that is no text is written as JSON would escape it.
    with (
        written_whole(path, keep_partial=True) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        if form == "csv":
            rows.writerow(CSV_COLUMNS)
        for prediction in predictions:
            if form == "csv":
                rows.writerows(to_rows(prediction))
            else:
                file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            count += 1
            if len(first) < SHOWN:
                first.append(prediction)
    return first, count


def to_rows(prediction: dict[str, Any]) -> Iterator[list[Any]]:
    """An image's rows of `CSV_COLUMNS`."""
    boxes = {region["class"]: region["box"] for region in prediction["regions"]}
    for label in prediction["labels"] or [{}]:
        numbers = [label.get(name, "") for name in ("class", "prob", "global_prob", "local_prob")]
        yield [prediction["image"], *numbers, *boxes.get(label.get("class"), ["", "", "", ""])]


if __name__ == "__main__":
    run_command(main)
