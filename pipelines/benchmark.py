"""How fast pictures come out of a prepared set, and where the time goes: python -m pipelines.benchmark.

With `--memory`, measure instead how much memory building and reading take, for sets of several sizes; with `--labels`
how fast tables of labels are read, and in how much memory.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarking.labels import LabelsRow, measure_labels, print_labels
from pipelines.benchmarking.memory import MemoryRow, measure_memory, print_memory
from pipelines.benchmarking.speed import PHOTOGRAPHS, Row, measure_speed, photographs
from pipelines.building.sets import build_set
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.manifest import load_manifest
from pipelines.words import spell

DATA, TIMING = "data", "what is timed, and how"


@dataclasses.dataclass
class Options:
    dataset: str = option(
        PHOTOGRAPHS,
        f"Name of a prepared set, or {PHOTOGRAPHS}: pictures of 640x480 px cut from scikit-learn's two.",
        group=DATA,
    )
    data_dir: Path = option(Path("data"), "Folder of the prepared sets.", group=DATA)
    split: str = option("train", "Split to read.", group=DATA)
    image_size: list[int] = option(
        [256, 448], "Sides of the images in px, measured one after the other.", group=TIMING
    )
    batch_size: int = option(16, "Pictures per batch.", group=TIMING)
    pictures: int = option(
        800, "Number of pictures that a round reads; at most those of the split.", group=TIMING
    )
    rounds: int = option(3, "Number of rounds, of which the medians are reported.", group=TIMING)
    workers: int = option(2, "Number of processes of the loader that stands for PyTorch's.", group=TIMING)
    memory: list[int] = option(
        [],
        "Measure instead the peak memory of building and reading sets of so many small pictures, such as 1000"
        " 200000.",
        group=TIMING,
    )
    labels: int = option(
        0,
        "Measure instead the speed and memory of reading labels, in tables of so many rows of each shape, such as"
        " 1000000.",
        group=TIMING,
    )
    json: Path | None = option(
        None, "Also write the results to this file, as a list of objects.", group=TIMING
    )


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        Options, argv, module="pipelines.benchmark", description="Measure how fast pictures come."
    )
    for name in ("batch_size", "pictures", "rounds", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"`{spell(name)}` must be at least 1. Received: {getattr(options, name)}")
    if min(options.memory, default=1) < 1:
        raise ValueError(f"`memory` must be at least 1. Received: {min(options.memory)}")
    if options.labels < 0 or (options.labels and options.memory):
        raise ValueError(
            f"`labels` must be 0 or more, and `memory` not given beside it. Received: {options.labels}"
        )
    rows: Sequence[Row | MemoryRow | LabelsRow]
    with tempfile.TemporaryDirectory() as scratch:
        if options.memory:
            rows = memory_rows = [measure_memory(pictures, Path(scratch)) for pictures in options.memory]
            print_memory(memory_rows)
        elif options.labels:
            rows = labels_rows = list[LabelsRow]()
            for row in measure_labels(options.labels, Path(scratch)):
                print_labels(row)
                labels_rows.append(row)
        else:
            load_tensorflow()
            rows = _measure_speed(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")


def _measure_speed(options: Options, scratch: Path) -> list[Row]:
    if options.dataset == PHOTOGRAPHS:
        manifest = build_set(photographs(options.pictures), scratch, processes=1)
    else:
        manifest = load_manifest(options.data_dir, options.dataset)
    return measure_speed(
        manifest,
        options.split,
        image_sizes=options.image_size,
        batch_size=options.batch_size,
        pictures=options.pictures,
        rounds=options.rounds,
        workers=options.workers,
        scratch=scratch,
    )


if __name__ == "__main__":
    run_command(main)
