"""Writes what `predict` found in each picture to one file: JSON lines, CSV or Parquet. Loads no TensorFlow."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from mcar_tf.evaluating.answers import Answer
from pipelines.files import written_whole
from pipelines.words import csv_text

AnswerFormat = Literal["jsonl", "csv", "parquet"]
CSV_COLUMNS = ("image", "class", "prob", "global_prob", "local_prob", "ymin", "xmin", "ymax", "xmax", "error")
SHOWN = 20  # how many predictions are also printed
ROWS_OF_A_GROUP = 1024  # of Parquet, which writes its rows group by group


def write_answers(
    path: Path, predictions: Iterable[Answer], form: AnswerFormat, all_classes: bool = False
) -> tuple[list[Answer], int]:
    """Write each prediction as it comes.

    The file is named `partial-...-NAME` until all predictions are written, and then `path`. If writing is
    interrupted, the partial file stays.

    Returns:
        The first `SHOWN` predictions for readable images, and the number of readable images.
    """
    first: list[Answer] = []
    count = 0
    with (
        written_whole(path, keep_partial=True) as partial,
        answers_writer(partial, form, all_classes) as write,
    ):
        for prediction in predictions:
            write(prediction)
            if "error" not in prediction:
                count += 1
                if len(first) < SHOWN:
                    first.append(prediction)
    return first, count


def check_format(form: AnswerFormat) -> None:
    """Raise an error if a package is missing that the format needs.

    Raises:
        ValueError: it is missing.
    """
    if form == "parquet":
        _import_parquet()


@contextlib.contextmanager
def answers_writer(
    path: Path, form: AnswerFormat, all_classes: bool = False
) -> Iterator[Callable[[Answer], None]]:
    """A function that appends an answer to a file, which is complete after the `with` block.

    jsonl: one object per line. csv: one row per label, with its region if it has one; an image that has no labels or
    can't be read gets a row without a class. With `all_classes`, a last column says which classes are present.
    parquet: one row per image with the fields of its JSON; `error` is null for a readable image.

    Args:
        path: the file.
        form: its format.
        all_classes: whether the answers' labels say `present`.
    """
    if form == "parquet":
        with _parquet_writer(path, all_classes) as write:
            yield write
        return
    # Bytes of a file's name that are not valid text are written as JSON would escape them.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if form == "jsonl":
            yield lambda answer: print(json.dumps(answer, ensure_ascii=False), file=file)
            return
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*CSV_COLUMNS, "present") if all_classes else CSV_COLUMNS)
        yield lambda answer: rows.writerows(to_rows(answer))


def to_rows(prediction: Answer) -> Iterator[list[Any]]:
    """An image's rows of the CSV file, with the columns `CSV_COLUMNS`."""
    boxes = {region["class"]: region["box"] for region in prediction["regions"]}
    for label in prediction["labels"] or [{}]:
        numbers = [label.get(name, "") for name in ("prob", "global_prob", "local_prob")]
        texts = [csv_text(text) for text in (prediction["image"], label.get("class", ""))]
        present = [int(label["present"])] if "present" in label else []
        box = boxes.get(label.get("class"), ["", "", "", ""])
        yield [*texts, *numbers, *box, csv_text(prediction.get("error", "")), *present]


@contextlib.contextmanager
def _parquet_writer(path: Path, all_classes: bool) -> Iterator[Callable[[Answer], None]]:
    pa, parquet = _import_parquet()
    label = [
        ("class", pa.string()),
        *((name, pa.float64()) for name in ("prob", "global_prob", "local_prob")),
    ]
    label += [("present", pa.bool_())] if all_classes else []
    region = [
        ("class", pa.string()),
        *((name, pa.float64()) for name in ("prob", "global_prob", "region_prob")),
    ]
    region += [("box", pa.list_(pa.float64()))]
    schema = pa.schema(
        [
            pa.field("image", pa.string(), nullable=False),
            ("labels", pa.list_(pa.struct(label))),
            ("regions", pa.list_(pa.struct(region))),
            ("error", pa.string()),
        ]
    )
    waiting: list[Answer] = []
    with parquet.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pa.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(answer: Answer) -> None:
            name = answer["image"].encode(errors="backslashreplace").decode()  # as in the other formats
            waiting.append(answer | {"image": name})
            if len(waiting) == ROWS_OF_A_GROUP:
                flush()

        try:
            yield write
        finally:  # an interruption keeps what was predicted
            if waiting:
                flush()


def _import_parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "Parquet needs pyarrow: pip install pyarrow. Or give --format jsonl or csv."
        ) from None
    return pyarrow, pyarrow.parquet
