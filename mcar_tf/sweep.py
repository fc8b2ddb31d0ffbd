"""Sweep: `python -m mcar_tf.sweep --vary top_n=0,2,4`. Values of options in, one table and one figure out.

Each combination of values is a `fit` of its own, or, of a run that is given, an `evaluate`: whole commands, one after
the other, each in a process of its own.
"""

import csv
import dataclasses
import io
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.config import FitConfig, parse_fit_config
from mcar_tf.evaluating import columns
from mcar_tf.runs.folder import read_run_config
from pipelines.command import Terminated, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.words import percent

Values = dict[str, str]  # option -> its value, as words of a command line


@dataclasses.dataclass
class SweepOptions:
    """What `sweep` can be told."""

    # fmt: off
    vary: list[str] = option(dataclasses.MISSING, "One or more options with their values, as top_n=0,1,2,4. All"
                             " combinations are tried.")
    run: Path | None = option(None, "Evaluate this run with each combination (null: train a run with each).")
    out_dir: Path | None = option(None, "Where everything goes (null: sweeps/<options>, or <run>/sweeps/<options>).")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    own, passed_on = split_words(words)
    options = parse_options(
        SweepOptions,
        own,
        module="mcar_tf.sweep",
        description="Train a run, or evaluate one, with each combination of some options' values. All that follows"
        " `--` goes to every `fit` or `evaluate`.",
    )
    varied = parse_varied(options.vary)
    combinations = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    base = options.run / "sweeps" if options.run else Path("sweeps")
    folder = options.out_dir or base / ",".join(varied)
    check(options, varied, combinations, passed_on)

    rows = []
    for number, values in enumerate(combinations, start=1):
        place = folder / ",".join(f"{name}={value}" for name, value in values.items()).replace("/", "_")
        print(f"\n[{number}/{len(combinations)}] {place.name}", flush=True)
        if options.run:
            (place / "metrics.json").unlink(missing_ok=True)  # maybe of another split
        code = run_to_end(command_of(options, values, place, passed_on))
        if code:
            return code
        rows.append(values | read_result(place / "metrics.json"))
        # After each: a sweep takes days.
        write_table(folder, rows)
    print("\n" + "\n".join(table_lines(rows)))
    write_figure(folder, varied, rows)
    print(f"\nwritten to {folder}: {', '.join(p.name for p in sorted(folder.glob('sweep.*')))}")
    return 0


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and what stands behind it."""
    words = list(words)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def parse_varied(texts: Sequence[str]) -> dict[str, list[str]]:
    """Options and the values that they take.

    Raises:
        ValueError: no `name=value,value`, or a name or value given twice.
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


def check(
    options: SweepOptions, varied: Mapping[str, Any], combinations: Sequence[Values], passed_on: Sequence[str]
) -> None:
    """Refuse before the first run what a later one would fail of."""
    if options.run:
        read_run_config(options.run)
        return
    for name in ("out_dir", "resume", "overwrite", "compare_baseline"):
        if name in varied or f"--{name.replace('_', '-')}" in passed_on:
            raise ValueError(f"--{name.replace('_', '-')} is the sweep's own business: leave it out.")
    names = [field.name for field in dataclasses.fields(FitConfig)]
    if unknown := [name for name in varied if name not in names]:
        raise ValueError(f"fit has no option {unknown[0]!r} (python -m mcar_tf.fit --help lists them).")
    for values in combinations:
        parse_fit_config([*passed_on, *as_words(values)])


def command_of(options: SweepOptions, values: Values, place: Path, passed_on: Sequence[str]) -> list[str]:
    """The words after `python -m`."""
    common = [*passed_on, *as_words(values), "--out-dir", str(place)]
    if options.run:
        return ["mcar_tf.evaluate", "--run", str(options.run), *common]
    return ["mcar_tf.fit", *common, "--resume"]


def as_words(values: Values) -> list[str]:
    """Options as they stand on a command line."""
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def run_to_end(words: Sequence[str]) -> int:
    """Run a command; its exit code. A signal that ends the sweep ends the command first, which saves."""
    process = subprocess.Popen([sys.executable, "-m", *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # the terminal sent it to both
        process.wait()
        raise
    except Terminated:
        process.terminate()
        process.wait()
        raise


def result_columns() -> dict[str, tuple[str, str]]:
    """Name in the table -> stream and measure: every stream's mAP, and the fused one's other short measures."""
    others = [m.name for m in columns.measures(columns.Detail.SHORT) if m.name != "mAP"]
    return {f"mAP_{stream}": (stream, "mAP") for stream in columns.STREAMS} | {
        n: ("fused", n) for n in others
    }


def read_result(path: Path) -> dict[str, float]:
    """The numbers of a `metrics.json` that `result_columns` names, NaN for what is unknown."""
    (metrics,) = json.loads(path.read_text()).values()
    found = {name: metrics[stream].get(measure) for name, (stream, measure) in result_columns().items()}
    return {name: math.nan if value is None else value for name, value in found.items()}


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `sweep.csv`; an unknown number is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)
    write_text(folder / "sweep.csv", text.getvalue())


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for people, in percent."""
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
    from mcar_tf.reporting.figures import plot_over_option

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


if __name__ == "__main__":
    run_command(main)
