"""Parses the options that a sweep varies, and writes its results as a table and a figure. Loads no TensorFlow."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.evaluating import columns
from mcar_tf.evaluating.metrics_file import read_metrics
from mcar_tf.reporting.figures import plot_over_option
from pipelines.files import write_text
from pipelines.words import csv_text, percent, spell

Values = dict[str, str]  # option -> its value, as typed on a command line


def parse_varied(texts: Sequence[str]) -> dict[str, list[str]]:
    """Options and the values that they take.

    Raises:
        ValueError: a text is not of the form `name=value,value`, or a name or value is given twice.
    """
    varied: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        found = values.split(",")
        if not (name and equals and all(found)):
            raise ValueError(f"`vary` takes options with values, as top_n=0,1,2,4. Received: {text!r}")
        if name in varied or len(set(found)) < len(found):
            raise ValueError(f"`vary` takes every option and every value once. Received: {' '.join(texts)}")
        varied[name] = found
    return varied


def as_words(values: Values) -> list[str]:
    """Options as the arguments of a command line."""
    return [word for name, value in values.items() for word in (f"--{spell(name)}", value)]


def result_columns() -> dict[str, tuple[str, str]]:
    """Column of the table -> stream and measure: mAP of each stream, and other `SHORT` measures of the fused one."""
    others = [m.name for m in columns.measures(columns.Detail.SHORT) if m.name != "mAP"]
    return {f"mAP_{stream}": (stream, "mAP") for stream in columns.STREAMS} | {
        n: ("fused", n) for n in others
    }


def read_result(path: Path) -> dict[str, float]:
    """The numbers of a `metrics.json` that `result_columns` names; NaN for unknown ones."""
    (metrics,) = read_metrics(path).values()
    found = {name: metrics[stream].get(measure) for name, (stream, measure) in result_columns().items()}
    return {name: math.nan if value is None else value for name, value in found.items()}


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `sweep.csv`; an unknown number is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {name: csv_text(value) if isinstance(value, str) else value for name, value in row.items()}
        writer.writerow({name: "" if value != value else value for name, value in cells.items()})
    write_text(folder / "sweep.csv", text.getvalue())


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table as lines to print, in percent."""
    shares = result_columns()
    cells = [list(rows[0])] + [
        [percent(value) if name in shares else value for name, value in row.items()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True)) for line in cells]


def write_figure(
    folder: Path, varied: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write `sweep.svg`, Fig. 5: mAP over the first varied option whose values are numbers, if there is one."""
    axis = next(
        (name for name, values in varied.items() if len(values) > 1 and all(map(_is_number, values))), None
    )
    if axis is None:
        return
    others = [name for name in varied if name != axis]
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if others:
            points = {", ".join(f"{name}={row[name]}" for name in others): row["mAP_fused"]}
        else:
            points = {stream: row[f"mAP_{stream}"] for stream in reversed(columns.STREAMS)}
        for line, value in points.items():
            lines.setdefault(line, []).append((float(row[axis]), value))
    svg = plot_over_option(axis, lines)
    write_text(folder / "sweep.svg", svg.decode())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
