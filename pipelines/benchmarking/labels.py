"""Measure reading labels: tables of every shape that is read row by row in, rows a second and peak memory out."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.benchmarking.own_process import peak_memory, run_alone
from pipelines.readers.table import read_table

CLASSES = tuple(f"class{number:02}" for number in range(20))
CHEXPERT = ("Enlarged Cardiomediastinum", "Lung Opacity", "Pleural Effusion")


@dataclasses.dataclass(frozen=True)
class LabelsRow:
    """How one shape was read.

    Attributes:
        shape: its name.
        rows: how many.
        rows_per_second: of checking all rows and reading the samples of every split, in processor time.
        memory_mb: the peak of the process that did it, less the peak for a thousand rows.
    """

    shape: str
    rows: int
    rows_per_second: float
    memory_mb: float


def measure_labels(rows: int, scratch: Path) -> Iterator[LabelsRow]:
    """Write a table of `rows` rows in each shape and read it in a process of its own, as a build does.

    The pictures themselves are not there and not looked for.
    """
    for shape in SHAPES:
        peaks = []
        for count in (1000, rows):
            seconds, peak = run_alone(_read, shape, count, scratch / "labels")
            shutil.rmtree(scratch / "labels")
            peaks.append(peak)
        yield LabelsRow(shape, rows, rows / seconds, peaks[1] - peaks[0])


def print_labels(row: LabelsRow) -> None:
    """Print one line."""
    print(
        f"{row.shape:48}{row.rows:>12,} rows{row.rows_per_second:>10,.0f} rows/s{row.memory_mb:>8.0f} MB",
        flush=True,
    )


def _read(shape: str, rows: int, folder: Path) -> tuple[float, float]:
    """Seconds of the processor and peak memory in MB of reading one table."""
    folder.mkdir()
    source = SHAPES[shape](folder, rows)
    started = time.process_time()
    raw = read_table(source, check_files=False)
    read = sum(1 for samples in raw.splits.values() for _ in samples())
    seconds = time.process_time() - started
    if read != rows:
        raise RuntimeError(f"{shape}: {read} samples of {rows} rows")
    return seconds, peak_memory()


# --- The shapes, each a function that writes a table of so many rows and returns it ------------------------------


def _of(row: int) -> list[str]:
    """The classes of a row: two, or one."""
    return sorted({CLASSES[row % 20], CLASSES[row // 20 % 20]})


def _split(row: int) -> str:
    return "train" if row % 10 else "test"


def _states(row: int, yes: str, no: str, between: str) -> str:
    return between.join(yes if name in _of(row) else no for name in CLASSES)


def _text(name: str, header: str, line: Callable[[int], str]) -> Callable[[Path, int], Path]:
    def write(folder: Path, rows: int) -> Path:
        with (folder / name).open("w") as file:
            file.write(header)
            file.writelines(line(row) + "\n" for row in range(rows))
        return folder / name

    return write


def _celeba(folder: Path, rows: int) -> Path:
    _text("list_eval_partition.txt", "", lambda row: f"{row:08}.jpg {row % 3}")(folder, rows)
    header = f"{rows}\n{' '.join(CLASSES)}\n"
    return _text("list_attr_celeba.txt", header, lambda row: f"{row:08}.jpg {_states(row, '1', '-1', ' ')}")(
        folder, rows
    )


def _parquet(folder: Path, rows: int) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = folder / "train.parquet"
    schema = pyarrow.schema([("file_name", pyarrow.string()), ("labels", pyarrow.list_(pyarrow.string()))])
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for first in range(0, rows, 10_000):
            numbers = range(first, min(first + 10_000, rows))
            columns = [f"{row:08}.jpg" for row in numbers], [_of(row) for row in numbers]
            file.write_table(pyarrow.table(list(columns), schema=schema))
    return path


def _cvat(folder: Path, rows: int) -> Path:
    def line(row: int) -> str:
        tags = "".join(f'<tag label="{name}"></tag>' for name in _of(row))
        return f'<image id="{row}" name="{row:08}.jpg" subset="{_split(row)}">{tags}</image>'

    path = _text("annotations.xml", "<annotations>\n", line)(folder, rows)
    with path.open("a") as file:
        file.write("</annotations>\n")
    return path


def _object(row: int) -> str:
    return json.dumps({"file_name": f"{row:08}.jpg", "labels": _of(row)})


SHAPES: dict[str, Callable[[Path, int], Path]] = {
    "our own form, with splits": _text(
        "labels.csv", "file,labels,split\n", lambda row: f"{row:08}.jpg,{';'.join(_of(row))},{_split(row)}"
    ),
    "our own form, to be divided": _text(
        "labels.csv", "file,labels\n", lambda row: f"{row:08}.jpg,{';'.join(_of(row))}"
    ),
    "a column a class (20), to be divided": _text(
        "_classes.csv",
        f"filename,{','.join(CLASSES)}\n",
        lambda row: f"{row:08}.jpg,{_states(row, '1', '0', ',')}",
    ),
    "tags by blanks, to be divided": _text(
        "train.csv", "image_name,tags\n", lambda row: f"train_{row},{' '.join(_of(row))}"
    ),
    "fastai: labels, is_valid": _text(
        "train.csv",
        "fname,labels,is_valid\n",
        lambda row: f"{row:08}.jpg,{' '.join(_of(row))},{row % 10 == 0}",
    ),
    "ChestX-ray14: labels by |, to be divided": _text(
        "Data_Entry.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,\n",
        lambda row: f"{row:08}.png,{'|'.join(_of(row)) if row % 2 else 'No Finding'},0,{row // 4}",
    ),
    "CheXpert: 1, 0, -1, blank, to be divided": _text(
        "train.csv",
        f"Path,Sex,{','.join(CHEXPERT)}\n",
        lambda row: f"train/{row:08}.jpg,Female,{('1.0,0.0,-1.0', ',1.0,0.0', '0.0,,1.0')[row % 3]}",
    ),
    "CelebA's text (20), with its partition": _celeba,
    "JSON lines, to be divided": _text("metadata.jsonl", "", _object),
    "Open Images: two lines a picture, to be divided": _text(
        "labels.csv",
        "ImageID,Source,LabelName,Confidence\n",
        lambda row: "\n".join(
            f"{row:08},verification,{CLASSES[(row + place) % 20]},{1 - place}" for place in range(2)
        ),
    ),
    "Parquet of paths": _parquet,
    "CVAT's XML, with subsets": _cvat,
}
