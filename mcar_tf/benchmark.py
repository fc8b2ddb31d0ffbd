"""What looking twice costs: `python -m mcar_tf.benchmark`. Table IX of the paper on this machine, as ratios."""

import dataclasses
import importlib.util
import itertools
import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from mcar_tf.benchmarking.timing import CLASSES
from mcar_tf.exporting.folder import check_checksums, read_parity
from mcar_tf.models.backbone_table import BACKBONES, check_backbone
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.words import counted, next_steps, spell, typed

MODEL, TIMING = "model", "what is timed, and how"


@dataclasses.dataclass
class BenchmarkOptions:
    """The options of `benchmark`."""

    # fmt: off
    backbone: list[str] = option(["mobilenet_v2"], f"Networks to time: one or more of {', '.join(BACKBONES)}.",
                                 group=MODEL)
    image_size: list[int] = option([256], "Sides of the images in px; one or more.", group=MODEL)
    batch_size: list[int] = option([8], "Images per batch; one or more numbers.", group=TIMING)
    top_n: int = option(4, "Regions looked at per image.", group=MODEL)
    glance_size: int | None = option(None, "Side in px to which the images are reduced for the first look (default:"
                                     " image-size). The plain backbone sees them at image-size.", group=MODEL)
    local_size: int | None = option(None, "Side of the regions' crops in px (default: glance-size).", group=MODEL)
    mode: Literal["infer", "train"] = option("infer", "infer: forward passes; train: whole training steps, and"
                                             " forward and backward of each stream.", group=TIMING)
    rounds: int = option(15, "Number of rounds; each part runs once per round.", group=TIMING)
    xla: bool = option(False, "Compile the model with XLA.", group=TIMING)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = option("float32", "Type that the backbone"
                                                                               " computes in.", group=MODEL)
    json: Path | None = option(None, "Also write the results to this file.", group=TIMING)
    export: Path | None = option(None, "Export folder whose forms are timed instead, in turn with the plain"
                                 " backbone exported in the same way; goes with --rounds and --json only.",
                                 group=TIMING)
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        BenchmarkOptions,
        argv,
        module="mcar_tf.benchmark",
        description="Time the plain backbone, the two-stream model and its parts in turn, on random images.",
    )
    check(options)
    load_tensorflow()
    from mcar_tf.runs.device import say_device, warn_of_slow_precision

    if options.export:
        say_device(str(options.export))
    else:
        say_device(options.precision, "random pictures", counted(CLASSES, "class"))
        warn_of_slow_precision(options.precision)
    results = (
        time_exported_forms(options.export, options.rounds) if options.export else time_built_models(options)
    )
    if options.json:
        write_text(options.json, json.dumps(results, indent=1) + "\n")
    if options.export:
        serve = f"{typed('mcar_tf.serve')} --export {shlex.quote(str(options.export))}"
        print(next_steps((serve, "a server, with a page to try it on")))
    else:
        tradeoff = f"{typed('mcar_tf.tradeoff')} --run RUN"
        print(next_steps((tradeoff, "times beside accuracy, for a run of yours")))


def time_exported_forms(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Time each form of the model in an export folder; print and return the results, a row per form."""
    from mcar_tf.benchmarking.exports import HEADER, LEGEND, table_row, time_forms

    return print_table(HEADER, time_forms(folder, rounds), table_row, LEGEND)


def time_built_models(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Time the models of Table IX; print and return the results row by row."""
    from mcar_tf.benchmarking.models import HEADER, LEGEND, table_row, time_models

    rows = time_models(
        options.backbone,
        options.image_size,
        options.batch_size,
        top_n=options.top_n,
        glance_size=options.glance_size,
        local_size=options.local_size,
        mode=options.mode,
        precision=options.precision,
        xla=options.xla,
        rounds=options.rounds,
    )
    return print_table(HEADER, rows, table_row, LEGEND)


def print_table(
    header: str, rows: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str], legend: str
) -> list[dict[str, Any]]:
    """Print each row as it comes, and return all rows."""
    print(header)
    results = []
    for row in rows:
        results.append(row)
        print(line(row), flush=True)
    print(legend)
    return results


def check(options: BenchmarkOptions) -> None:
    """Refuse options that no model can be built from, folders that are no export, and options without effect."""
    for name, size in itertools.product(options.backbone, options.image_size):
        check_backbone(
            name,
            image_size=size,
            glance_size=options.glance_size,
            local_size=options.local_size,
            spell=spell,
        )
    if min(options.batch_size) < 1:
        raise ValueError(f"`batch-size` must be at least 1. Received: {min(options.batch_size)}")
    if not 1 <= options.top_n <= CLASSES:
        raise ValueError(f"`top-n` must lie in [1, {CLASSES}]. Received: {options.top_n}")
    if options.rounds < 3:
        raise ValueError(f"`rounds` must be at least 3. Received: {options.rounds}")
    if options.export:
        check_export(options.export, options)


def check_export(folder: Path, options: BenchmarkOptions) -> None:
    """Refuse a folder that is no export folder, and options that apply only to models built for the benchmark."""
    read_parity(folder)
    check_checksums(folder)
    plain = BenchmarkOptions(export=folder, rounds=options.rounds, json=options.json)
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != getattr(plain, field.name):
            raise ValueError(
                f"`{spell(field.name)}` does nothing with --export: the exported model has its own. Leave it out."
            )
    if importlib.util.find_spec("ai_edge_litert") is None and list(folder.glob("*.tflite")):
        raise ValueError("Timing TFLite files needs LiteRT: pip install 'mcar-tf[phone]'")


if __name__ == "__main__":
    run_command(main)
