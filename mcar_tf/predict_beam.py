"""Predict on Apache Beam, for more pictures than one machine can look at.

    python -m mcar_tf.predict_beam --export DIR --table FILE --out-dir DIR -- --runner=FlinkRunner --parallelism=64

An export folder and a list of pictures in; shards of predictions out, whose rows are those of `predict`.
"""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from mcar_tf.answer_options import ANSWERS, AnswerOptions
from mcar_tf.bulk.listing import LISTS, PLAN, Plan, plan_files, plan_split, read_plan, read_table
from mcar_tf.bulk.on_beam import predict_on_beam
from mcar_tf.bulk.task import ShardTask, find_shards, read_counts
from mcar_tf.evaluating.answers import find_images
from mcar_tf.exporting.folder import CHECKSUMS, find_saved_model, read_parity
from pipelines.command import option, parse_options, run_command
from pipelines.files import file_sha256, locked, remove, remove_partial, write_text
from pipelines.manifest import MANIFEST, load_manifest
from pipelines.words import nearest, spell

SUMMARY = "summary.json"
WHAT = "what"


@dataclasses.dataclass(kw_only=True)
class PredictBeamOptions(AnswerOptions):
    """The options of `predict_beam`."""

    # fmt: off
    export: Path = option(dataclasses.MISSING, "The export folder, which holds a SavedModel.", group=WHAT)
    images: list[str] | None = option(None, "Image files, folders (searched with all folders inside them) or globs.",
                                      group=WHAT)
    table: Path | None = option(None, "Or a table of paths: .txt, .csv, .tsv, .jsonl or .parquet.", group=WHAT)
    file_column: str | None = option(None, "The table's column of paths (default: the one with a usual name).",
                                     group=WHAT)
    dataset: str | None = option(None, "Or a prepared set: its name in --data-dir.", group=WHAT)
    data_dir: Path = option(Path("data"), "Folder of the prepared sets.", group=WHAT)
    split: str = option("test", "The prepared set's split.", group=WHAT)
    out_dir: Path = option(dataclasses.MISSING, "Folder for the shards of predictions, the same for all workers.",
                           group=ANSWERS)
    overwrite: bool = option(False, "Begin anew, also where --out-dir holds predictions.", group=ANSWERS)
    format: Literal["jsonl", "parquet"] = option("jsonl", "jsonl: one line per image; parquet: one row per image.",
                                                 group=ANSWERS)
    shard_size: int = option(4096, "Images per shard, a multiple of --batch-size; a prepared set keeps its shards.",
                             group=ANSWERS)
    # fmt: on

    def check(self) -> None:
        """Refuse options that can't work, before anything slow happens."""
        given = [name for name in ("images", "table", "dataset") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"Give one of --images, --table and --dataset. Received: {' and '.join(given) or 'none'}"
            )
        if self.file_column and self.table is None:
            raise ValueError("`file-column` does nothing without --table. Leave it out.")
        if self.dataset is None and self.split != "test":
            raise ValueError("`split` does nothing without --dataset. Leave it out.")
        self.check_answers()
        if self.shard_size < 1 or self.shard_size % self.batch_size:
            raise ValueError(
                f"`shard-size` must be a multiple of --batch-size {self.batch_size}. Received: {self.shard_size}"
            )
        find_saved_model(self.export)
        if importlib.util.find_spec("apache_beam") is None:
            raise ValueError("Apache Beam is not installed: pip install 'mcar-tf[beam]'")

    @property
    def said(self) -> dict[str, str]:
        """The options that rows depend on, as text, to compare with those of an earlier command."""
        values = {
            "export": file_sha256(self.export / CHECKSUMS),
            "table": self.table and file_sha256(self.table),
            **{name: getattr(self, name) for name in ("images", "file_column", "dataset", "format")},
            **{name: getattr(self, name) for name in ("all_classes", "threshold", "batch_size")},
            "split": self.dataset and self.split,
            "data_dir": self.dataset and file_sha256(self.data_dir / self.dataset / MANIFEST),
            "shard_size": None if self.dataset else self.shard_size,
        }
        return {spell(name): str(value) for name, value in values.items()}


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    mark = words.index("--") if "--" in words else len(words)
    options = parse_options(
        PredictBeamOptions,
        words[:mark],
        module="mcar_tf.predict_beam",
        description="What is in very many images, on Apache Beam. What follows `--` is for Beam.",
    )
    options.check()
    folder = options.out_dir.absolute()  # workers run in other folders
    folder.mkdir(parents=True, exist_ok=True)
    with locked(
        folder / ".lock", f"{folder} is being filled by another predict_beam. Wait, or give --out-dir."
    ):
        _check_input(options)
        if options.overwrite:
            for path in (folder / PLAN, folder / SUMMARY, folder / LISTS, *find_shards(folder)):
                remove(path)
        plan = _make_plan(options, folder)
        task = ShardTask(
            folder,
            plan.shards,
            plan.of_records,
            options.format,
            options.all_classes,
            options.threshold,
            options.batch_size,
            image_size=int(read_parity(options.export)["model"]["image_size"]),
        )
        predict_on_beam(options.export.absolute(), task, words[mark + 1 :])
        for place in (folder, folder / LISTS):
            remove_partial(place)  # of killed workers
        _summarize(task, plan)


def _check_input(options: PredictBeamOptions) -> None:
    """Refuse pictures that can't be listed, before earlier results are deleted."""
    if options.dataset is not None:
        splits = load_manifest(options.data_dir, options.dataset).splits
        if options.split not in splits:
            raise ValueError(
                f"`split` must be one of {', '.join(splits)}. Received: {options.split!r}."
                f"{nearest(options.split, splits)}"
            )
    elif options.overwrite:
        next(_names(options), None)


def _make_plan(options: PredictBeamOptions, folder: Path) -> Plan:
    said = options.said
    plan = read_plan(folder, said)
    if plan:
        print(
            f"going on with the {plan.pictures:,} pictures in {plan.shards:,} shards listed in {folder / LISTS}"
        )
        return plan
    if options.dataset is not None:
        split = load_manifest(options.data_dir, options.dataset).splits[options.split]
        plan = plan_split(folder, said, split)
    else:
        plan = plan_files(folder, said, _names(options), options.shard_size)
    again = f" ({plan.repeated:,} were named again)" if plan.repeated else ""
    print(f"{plan.pictures:,} pictures in {plan.shards:,} shards{again}", flush=True)
    return plan


def _names(options: PredictBeamOptions) -> Iterator[str]:
    if options.table is not None:
        return read_table(options.table, options.file_column)
    return (str(path.absolute()) for path in find_images(options.images or []))


def _summarize(task: ShardTask, plan: Plan) -> None:
    """Write `summary.json`, which says that all is there, and print it."""
    counts = [read_counts(task, shard) for shard in range(task.shards)]
    if None in counts:
        raise ValueError(
            f"{counts.count(None)} of {task.shards} shards are missing: run the same command again."
        )
    unreadable = sum(count.unreadable for count in counts if count)
    summary = {
        "pictures": sum(count.readable + count.unreadable for count in counts if count),
        "unreadable": unreadable,
        "shards": task.shards,
    }
    if summary["pictures"] != plan.pictures:
        raise RuntimeError(f"the shards hold {summary['pictures']} pictures, not the {plan.pictures} listed.")
    write_text(task.folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    bad = f", {unreadable:,} of them unreadable (unreadable-*.{task.format})" if unreadable else ""
    print(f"{plan.pictures:,} pictures predicted{bad}: {task.path(0).parent / 'predictions-*'}")


if __name__ == "__main__":
    run_command(main)
