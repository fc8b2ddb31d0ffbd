"""Lists the pictures of a bulk prediction and divides them into shards, once and for all. Loads no TensorFlow.

In the output folder:

plan.json                  what is predicted, with which model, and the number of shards; written after the lists
lists/00000.json           names of a shard's pictures; of a prepared set, the shard's file
lists/00000.done.json      how many of them are readable and how many not; written after the shard's predictions
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.files import remove, write_text
from pipelines.manifest import Split
from pipelines.readers.csv_layout import read_lines
from pipelines.readers.values import FILE_NAMES, find_key
from pipelines.reading import read_json, read_json_object
from pipelines.typed import from_json

PLAN, LISTS = "plan.json", "lists"
TABLES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a bulk prediction consists of.

    Attributes:
        options: every option that its rows depend on, as text.
        shards: number of shards.
        pictures: number of pictures.
        repeated: how often a picture was named again; it is predicted once.
        of_records: whether the lists name shards of a prepared set instead of pictures.
    """

    options: dict[str, str]
    shards: int
    pictures: int
    repeated: int = 0
    of_records: bool = False


def read_plan(folder: Path, options: dict[str, str]) -> Plan | None:
    """The plan that an earlier command left in the output folder, or None.

    Raises:
        ValueError: it was made with other options.
    """
    if not (folder / PLAN).is_file():
        return None
    plan: Plan = from_json(Plan, read_json_object(folder / PLAN), str(folder / PLAN))
    for name, value in options.items():
        if plan.options.get(name) != value:
            raise ValueError(
                f"{folder} holds predictions with --{name} {plan.options.get(name)}, not {value}. Give another"
                " --out-dir, or --overwrite."
            )
    return plan


def plan_files(folder: Path, options: dict[str, str], names: Iterable[str], shard_size: int) -> Plan:
    """Divide pictures into shards of `shard_size`, in their order, each picture once.

    Args:
        folder: the output folder.
        options: see `Plan`.
        names: absolute paths of the pictures.
        shard_size: number of pictures in a shard; the last one may have fewer.

    Raises:
        ValueError: there is no picture.
    """
    seen: set[bytes] = set()  # hashes, since a hundred million paths take several times the memory
    named = 0

    def once() -> Iterator[str]:
        nonlocal named
        for name in names:
            named += 1
            digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=12).digest()
            if digest not in seen:
                seen.add(digest)
                yield name

    pictures = once()
    chunks = iter(lambda: list(itertools.islice(pictures, shard_size)), [])
    shards = _write_lists(folder, chunks)
    if not shards:
        raise ValueError("There is not one picture to predict.")
    return _write_plan(folder, Plan(options, shards, len(seen), repeated=named - len(seen)))


def plan_split(folder: Path, options: dict[str, str], split: Split) -> Plan:
    """Take the shards of a prepared set's split."""
    shards = _write_lists(folder, ([str(file.absolute())] for file in split.files))
    return _write_plan(folder, Plan(options, shards, split.examples, of_records=True))


def _write_lists(folder: Path, chunks: Iterable[Sequence[str]]) -> int:
    remove(folder / LISTS)
    (folder / LISTS).mkdir(parents=True)
    shards = 0
    for shards, chunk in enumerate(chunks, 1):
        (folder / LISTS / f"{shards - 1:05d}.json").write_text(json.dumps(chunk), encoding="utf-8")
    return shards


def _write_plan(folder: Path, plan: Plan) -> Plan:
    write_text(folder / PLAN, json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
    return plan


def read_list(folder: Path, shard: int) -> list[str]:
    """The names of a shard's pictures, or of a prepared set's shard."""
    names: list[str] = read_json(folder / LISTS / f"{shard:05d}.json")
    return names


def read_table(path: Path, file_column: str | None = None) -> Iterator[str]:
    """The absolute paths of the pictures that a table names, row by row; relative ones begin at the table's folder.

    Args:
        path: .txt, one path a line; .csv or .tsv; .jsonl, one object a line; .parquet.
        file_column: column, or key, of the paths; None: the one with a usual name, such as `file` or `image`.

    Raises:
        ValueError: the table has another ending, or no such column, or a row without a path.
    """
    readers = {".txt": _read_txt, ".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl}
    reader = readers.get(path.suffix.lower(), _read_parquet)
    if path.suffix.lower() not in TABLES:
        raise ValueError(f"`table` must end in {', '.join(TABLES)}. Received: {path}")
    if file_column and path.suffix.lower() == ".txt":
        raise ValueError("`file-column` does nothing for a .txt, which has one path a line. Leave it out.")
    folder = path.absolute().parent
    for where, cell in reader(path, file_column):
        if not isinstance(cell, str) or not cell.strip():
            raise ValueError(f"{path}, {where}: there is no path of a picture. Received: {cell!r:.60}")
        yield str(folder / cell)


def _read_txt(path: Path, _: str | None) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", line.removesuffix("\n")


def _read_csv(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    lines = read_lines(path, "utf-8-sig", "\t" if path.suffix.lower() == ".tsv" else ",")
    _, header = next(lines, (0, []))
    place = header.index(_find_column(path, header, column))
    for number, cells in lines:
        yield f"line {number}", cells[place] if place < len(cells) else None


def _read_jsonl(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    found = ""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: it is not a JSON object. Received: {line:.60}")
            if not found:
                column = found = _find_column(path, list(row), column)
            yield f"line {number}", row.get(str(column))


def _read_parquet(path: Path, column: str | None) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a Parquet file: {' '.join(str(error).split())[:200]}") from None
    with file:
        column = _find_column(path, list(file.schema_arrow.names), column)
        number = 0
        for batch in file.iter_batches(columns=[column]):
            for number, value in enumerate(batch[column].to_pylist(), number + 1):  # noqa: B020
                yield f"row {number}", value


def _find_column(path: Path, columns: list[str], asked: str | None) -> str:
    if asked and asked not in columns:
        raise ValueError(f"{path} has no `file-column` {asked}. It has {', '.join(columns)}.")
    return asked or find_key(path, columns, FILE_NAMES, "file-column")
