"""Sweep: `python -m mcar_tf.sweep --vary top_n=0,2,4`. Values of options in, one table and one figure out.

Each combination of values is a separate `fit`, or an `evaluate` if a run is given. The commands run one after the
other, each in its own process.
"""

import dataclasses
import itertools
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.config import NOT_RECORDED, FitConfig, parse_fit_config
from mcar_tf.reporting.sweeps import (
    Values,
    as_words,
    parse_varied,
    read_result,
    table_lines,
    write_figure,
    write_table,
)
from mcar_tf.runs.folder import command_on, read_run_config
from pipelines.command import Terminated, option, parse_options, run_command
from pipelines.words import nearest, next_steps, spell, typed


@dataclasses.dataclass
class SweepOptions:
    """The options of `sweep`."""

    # fmt: off
    vary: list[str] = option(dataclasses.MISSING, "One or more options with their values, such as top_n=0,1,2,4;"
                             " every combination is tried.")
    run: Path | None = option(None, "Evaluate this run with each combination (default: train a run with each).")
    out_dir: Path | None = option(None, "Folder for all results (default: sweeps/<options>, or"
                                  " <run>/sweeps/<options>).")
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

    rows, places = [], []
    for number, values in enumerate(combinations, start=1):
        place = folder / ",".join(f"{name}={value}" for name, value in values.items()).replace("/", "_")
        print(f"\n[{number}/{len(combinations)}] {place.name}", flush=True)
        if options.run:
            (place / "metrics.json").unlink(missing_ok=True)  # it may hold another split's metrics
        code = run_to_end(command_of(options, values, place, passed_on))
        if code:
            return code
        places.append(place)
        rows.append(values | read_result(place / "metrics.json"))
        # Written after each combination, because a sweep can take days.
        write_table(folder, rows)
    print("\n" + "\n".join(table_lines(rows)))
    write_figure(folder, varied, rows)
    print(f"\nwritten to {folder}: {', '.join(p.name for p in sorted(folder.glob('sweep.*')))}")
    if options.run:
        two = (shlex.quote(str(place)) for place in (places[0], places[-1]))
        compare = f"{typed('mcar_tf.compare')} --runs {next(two)} --to {next(two)}"
        print(next_steps((compare, "whether two of them differ by more than chance")))
    else:
        evaluate = command_on(places[-1], "evaluate")
        print(next_steps((evaluate, "every metric of one of them; compare and report go on from there")))
    return 0


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--`, and the words after it."""
    words = list(words)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def check(
    options: SweepOptions, varied: Mapping[str, Any], combinations: Sequence[Values], passed_on: Sequence[str]
) -> None:
    """Refuse, before the first run starts, options that would make a later run fail."""
    if options.run:
        read_run_config(options.run)
        return
    for name in NOT_RECORDED:
        if name in varied or f"--{spell(name)}" in passed_on:
            raise ValueError(f"--{spell(name)} is the sweep's own business: leave it out.")
    names = [field.name for field in dataclasses.fields(FitConfig)]
    if unknown := [name for name in varied if name not in names]:
        hint = nearest(unknown[0], names)
        raise ValueError(f"fit has no option {unknown[0]!r}.{hint} {typed('mcar_tf.fit')} --help lists them.")
    for values in combinations:
        parse_fit_config([*passed_on, *as_words(values)])


def command_of(options: SweepOptions, values: Values, place: Path, passed_on: Sequence[str]) -> list[str]:
    """The command for one combination of values: the words after `python -m`."""
    common = [*passed_on, *as_words(values), "--out-dir", str(place)]
    if options.run:
        return ["mcar_tf.evaluate", "--run", str(options.run), *common]
    return ["mcar_tf.fit", *common, "--resume"]


def run_to_end(words: Sequence[str]) -> int:
    """Run a command and return its exit code. A signal that ends the sweep first ends the command, which saves."""
    process = subprocess.Popen([sys.executable, "-m", *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # the terminal sent SIGINT to the command, too
        process.wait()
        raise
    except Terminated:
        process.terminate()
        process.wait()
        raise


if __name__ == "__main__":
    run_command(main)
