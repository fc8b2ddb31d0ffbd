"""A CSV or a COCO-style JSON in, its rows out: one picture each, and what the table says is in it."""

import csv
import dataclasses
import difflib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.files import naming
from pipelines.readers.coco import Box, labels_of, read_instances
from pipelines.words import nearest

COLUMNS = ("file", "labels", "difficult", "split")
SEPARATOR = ";"  # between the labels of one cell, unless told otherwise
PRESENT, ABSENT, DIFFICULT, UNKNOWN = "present", "absent", "difficult", "unknown"
MinusOne = Literal["difficult", "absent", "unknown"]  # what -1 says in a column per class
CELLS = {"1": PRESENT, "0": ABSENT, "-1": DIFFICULT, "": UNKNOWN}  # of a column per class
CELLS |= {"1.0": PRESENT, "0.0": ABSENT, "-1.0": DIFFICULT}  # as pandas writes a column that has gaps
SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
IS_VALID = {"true": "validation", "1": "validation", "false": "train", "0": "train"}  # fastai's column


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One picture as its table has it: class names, not yet indices. `place` is for people: `line 3`."""

    table: Path
    place: str
    file: str
    present: tuple[str, ...]
    difficult: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    split: str | None = None
    boxes: tuple[Box, ...] = ()
    box_labels: tuple[str, ...] = ()
    measured: tuple[int, int] | None = None

    @property
    def where(self) -> str:
        return f"{self.table}, {self.place}"


class Table:
    """A file of rows.

    Attributes:
        path: the file.
        split: the split of all its rows, where the file's name tells it.
        declared: the classes that it names outside of its rows, or None.
        ignored: columns that are not read.
        names_splits: whether each row names its split.
        joins_labels: whether a row's labels stand in one cell, one behind the other.
        remarks: what was guessed, in words for a person; complete once the rows were iterated.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        self.path = path
        self.split = split
        self.declared: tuple[str, ...] | None = None
        self.ignored: tuple[str, ...] = ()
        self.names_splits = False
        self.joins_labels = False
        self.remarks: list[str] = []

    def rows(self) -> Iterator[Row]:
        raise NotImplementedError


def find_tables(
    source: Path,
    given: tuple[str, ...] | None,
    separator: str = SEPARATOR,
    minus_one: MinusOne | None = None,
) -> list[Table]:
    if not source.exists():
        near = nearest(source.name, os.listdir(source.parent)) if source.parent.is_dir() else ""
        raise FileNotFoundError(f"{source} is not there.{near}")
    how = {"given": given, "separator": separator, "minus_one": minus_one}
    if source.is_file():
        return [_open_table(source, None, **how)]
    # What begins with a dot is no table: `._labels.csv` is what a Mac's archive has beside `labels.csv`.
    found = sorted(
        path
        for path in source.iterdir()
        if path.suffix.lower() in (".csv", ".json") and not path.name.startswith(".")
    )
    if not found:
        raise FileNotFoundError(f"{source} holds no CSV and no JSON. Name the table itself, or its folder.")
    if len(found) == 1:
        return [_open_table(found[0], None, **how)]
    stems = [path.stem.removeprefix("instances_") for path in found]
    if not set(stems) <= set(SPLIT_NAMES) or len({SPLIT_NAMES[stem] for stem in stems}) < len(stems):
        raise ValueError(
            f"{source} holds {', '.join(path.name for path in found[:6])}: name the one to read, or have one a"
            " split, named train, val and test."
        )
    tables = [_open_table(path, SPLIT_NAMES[stem], **how) for path, stem in zip(found, stems, strict=True)]
    for table in tables:
        if table.names_splits:
            raise ValueError(
                f"{table.path} has a column `split`, beside a file for each split. Keep one of them."
            )
        if table.declared != tables[0].declared and given is None:
            raise ValueError(
                f"{table.path} and {tables[0].path} name other classes, or in another order. Give the classes."
            )
    return tables


def _open_table(path: Path, split: str | None, **how: Any) -> Table:
    if path.suffix.lower() == ".json":
        return Json(path, split)
    if path.suffix.lower() == ".csv":
        return Csv(path, split, **how)
    raise ValueError(f"{path}: a table must be a .csv or a .json file.")


class Json(Table):
    """A COCO-style JSON, held in memory."""

    def __init__(self, path: Path, split: str | None) -> None:
        super().__init__(path, split)
        self._instances = read_instances(path)
        self.remarks = self._instances.remarks
        self.declared = tuple(self._instances.categories.values())

    def rows(self) -> Iterator[Row]:
        instances = self._instances
        index = {category: place for place, category in enumerate(instances.categories)}
        names = list(instances.categories.values())
        for image in instances.images:
            present, boxes, box_labels = labels_of(instances.objects.get(image.id, []), index)
            yield Row(
                table=self.path,
                place=f"image {image.id}",
                file=image.file_name,
                present=tuple(names[label] for label in present),
                split=self.split,
                boxes=boxes,
                box_labels=tuple(names[label] for label in box_labels),
                measured=image.measured,
            )


class Csv(Table):
    """A CSV, read anew at every iteration: a column of labels, or a column per class."""

    def __init__(
        self,
        path: Path,
        split: str | None,
        *,
        given: tuple[str, ...] | None,
        separator: str,
        minus_one: MinusOne | None,
    ) -> None:
        super().__init__(path, split)
        _, cells = next(self._lines(), (0, []))
        header = [_text(cell) for cell in cells]
        self._place = {column: place for place, column in enumerate(header)}
        self._separator = separator
        self._cells = CELLS | {"-1": minus_one or DIFFICULT, "-1.0": minus_one or DIFFICULT}
        self._is_told = minus_one is not None
        self._met: set[str] = set()  # kinds of cells
        self._split_column = next((name for name in ("split", "is_valid") if name in header), None)
        self.names_splits = self._split_column is not None
        others = [column for column in header if column not in (*COLUMNS, self._split_column)]
        if "file" not in header:
            has = f"It has {', '.join(header)[:200]}." if header else "It is empty."
            hint = " Columns are separated by commas." if len(header) == 1 else nearest("file", header)
            raise ValueError(f"{path} has no column `file`. {has}{hint}")
        if len(self._place) < len(header):
            twice = next(column for column in header if header.count(column) > 1)
            raise ValueError(f"{path} has two columns `{twice}`.")
        self.joins_labels = "labels" in header
        if self.joins_labels:
            self._class_columns, self.ignored = [], tuple(others)
        elif given is None:
            self._class_columns, self.declared = others, tuple(others)
        else:
            self._class_columns = list(given)
            self.ignored = tuple(column for column in others if column not in given)
        self._check_columns(header, others if given is None else self.ignored, others)

    def _check_columns(self, header: list[str], extra: Sequence[str], others: list[str]) -> None:
        """Refuse a header that says what we can't know; `extra`: columns that may be misspelt."""
        for name in self._class_columns:
            if name not in self._place:
                raise ValueError(
                    f"{self.path} has neither a column `labels` nor one of the class `{name}`."
                    f"{nearest(name, others)}"
                )
        for column in extra:
            for known in difflib.get_close_matches(column.lower(), set(COLUMNS) - set(header), 1, cutoff=0.8):
                raise ValueError(f"{self.path} has a column `{column}`. Did you mean `{known}`?")
        if not self._class_columns and not self.joins_labels:
            raise ValueError(f"{self.path} has neither a column `labels` nor a column per class.")
        if self._class_columns and "difficult" in header:
            raise ValueError(
                f"{self.path}: in a column per class, -1 says difficult; drop the column `difficult`."
            )

    def rows(self) -> Iterator[Row]:
        place = self._place
        labels_of_row = self._labels_from_columns if self._class_columns else self._labels_from_cell
        for line, cells in itertools.islice(self._lines(), 1, None):
            where = f"{self.path}, line {line}"
            if len(cells) != len(place):
                raise ValueError(
                    f"{where}: {len(cells)} fields, but {len(place)} in the header. Labels are separated by"
                    f" `{self._separator}`, and a field with a comma in it is quoted."
                )
            split = self._split_of(where, cells) if self.names_splits else self.split
            present, difficult, unknown = labels_of_row(where, cells)
            yield Row(
                *(self.path, f"line {line}", cells[place["file"]].strip(), present, difficult, unknown, split)
            )
        if DIFFICULT in self._met and not self._is_told:
            if ABSENT not in self._met:
                raise ValueError(
                    f"{self.path} has 1 and -1 in its columns and no 0: does -1 say absent, unknown, or present"
                    " but hard to see? --minus-one absent, unknown or difficult tells."
                )
            self._remark("-1 is read as difficult: present, but hard to see. --minus-one tells otherwise")

    def _split_of(self, where: str, cells: list[str]) -> str:
        column = str(self._split_column)
        named = cells[self._place[column]].strip()
        if column == "is_valid":
            if named.lower() not in IS_VALID:
                raise ValueError(f"{where}: `is_valid` must be True or False. Received: {named!r:.40}")
            self._remark("is_valid is read as the split: True is validation, False is train")
            return IS_VALID[named.lower()]
        split = SPLIT_NAMES.get(named, named)
        if not re.fullmatch(r"[A-Za-z0-9_]+", split):
            raise ValueError(
                f"{where}: `split` must be a name of letters, digits and _. Received: {named!r:.40}"
            )
        if split != named:
            self._remark(f"the split {named} is read as {split}")
        return split

    def _labels_from_cell(self, where: str, cells: list[str]) -> tuple[tuple[str, ...], ...]:
        """The present, difficult and unknown classes of a row with a cell of labels."""
        difficult = self._names_in(cells[self._place["difficult"]]) if "difficult" in self._place else ()
        return self._names_in(cells[self._place["labels"]]) + difficult, difficult, ()

    def _names_in(self, cell: str) -> tuple[str, ...]:
        return tuple(name for part in cell.split(self._separator) if (name := _text(part)))

    def _labels_from_columns(self, where: str, cells: list[str]) -> tuple[tuple[str, ...], ...]:
        """The same of a row with a cell per class."""
        found: dict[str, list[str]] = {PRESENT: [], ABSENT: [], DIFFICULT: [], UNKNOWN: []}
        for name in self._class_columns:
            cell = cells[self._place[name]].strip()
            if cell not in self._cells:
                hint = "" if self.declared is None else " If that is no class, give the names of the classes."
                raise ValueError(
                    f"{where}, column `{name}`: expected 1, 0, -1 or nothing. Received: {cell!r:.40}.{hint}"
                )
            found[self._cells[cell]].append(name)
        self._met.update(kind for kind, names in found.items() if names)
        return tuple(found[PRESENT] + found[DIFFICULT]), tuple(found[DIFFICULT]), tuple(found[UNKNOWN])

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of each row that is not blank, the header first."""
        with open(self.path, newline="", encoding="utf-8-sig") as file, naming(self.path):
            reader = csv.reader(file, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{self.path} is not UTF-8 text, after line {reader.line_num}: {error.reason}. Save it as UTF-8."
                ) from None
            except csv.Error as error:
                raise ValueError(f"{self.path}, line {reader.line_num}: not CSV: {error}") from None

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _text(cell: str) -> str:
    """A name as it is compared: without space around it, accents composed (`é` is one character, not two)."""
    return cell.strip() if cell.isascii() else unicodedata.normalize("NFC", cell.strip())
