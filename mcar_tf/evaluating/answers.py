"""Names of image files in, files with what was found in them out: the two ends of `predict`. Loads no TensorFlow."""

import csv
import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.files import written_whole
from pipelines.words import csv_text

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
CSV_COLUMNS = ("image", "class", "prob", "global_prob", "local_prob", "ymin", "xmin", "ymax", "xmax")
SHOWN = 20  # predictions that are printed too

# What was found in an image: `image`, `labels` and `regions`, as `mcar_tf.evaluating.photos.describe` gives them.
Answer = dict[str, Any]


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


def write_answers(
    path: Path, predictions: Iterable[Answer], form: Literal["jsonl", "csv"]
) -> tuple[list[Answer], int]:
    """Write each prediction as it comes; `path` is there once all are, until then `partial-...-NAME`, which an
    interruption leaves behind.

    jsonl: an object a line. csv: a row a label, with its region where it has one; an image without labels has a row
    without a class.

    Returns:
        The first `SHOWN` predictions, and how many there were.
    """
    first: list[Answer] = []
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


def to_rows(prediction: Answer) -> Iterator[list[Any]]:
    """An image's rows of `CSV_COLUMNS`."""
    boxes = {region["class"]: region["box"] for region in prediction["regions"]}
    for label in prediction["labels"] or [{}]:
        numbers = [label.get(name, "") for name in ("prob", "global_prob", "local_prob")]
        texts = [csv_text(text) for text in (prediction["image"], label.get("class", ""))]
        yield [*texts, *numbers, *boxes.get(label.get("class"), ["", "", "", ""])]
