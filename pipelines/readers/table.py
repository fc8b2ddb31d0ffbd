"""Your own pictures: a CSV or a COCO-style JSON and a folder of pictures in, labelled samples out.

A CSV is read row by row, and more than once: first to check it, to find its classes and to divide it, then again as
the samples of a split are asked for. In between only a hash and, where the split is ours to choose, the labels of
each row are kept: so a table of many millions of rows fits into memory.
"""

import csv
import dataclasses
import difflib
import functools
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.files import file_sha256
from pipelines.readers.classes import read_class_names
from pipelines.readers.coco import Box, labels_of, read_instances
from pipelines.readers.stratify import seeded_keys, stratified_split
from pipelines.records import sort_key
from pipelines.samples import RawSet, Sample, Skip
from pipelines.words import nearest

COLUMNS = ("file", "labels", "difficult", "split")
SEPARATOR = ";"  # between the labels of one cell
PRESENT, ABSENT, DIFFICULT, UNKNOWN = "present", "absent", "difficult", "unknown"
CELLS = {"1": PRESENT, "0": ABSENT, "-1": DIFFICULT, "": UNKNOWN}  # of a column per class
CELLS |= {"1.0": PRESENT, "0.0": ABSENT, "-1.0": DIFFICULT}  # as pandas writes a column that has gaps
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def read_table(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    name: str = "table",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    licence: str = "",
    check_files: bool = True,
) -> RawSet:
    """Pictures of your own and what is in them.

    A CSV (UTF-8, commas) has a column `file` and either `labels`, separated by `;`, with `difficult` (more labels,
    hard to see) if you like; or a column per class: 1 present, 0 absent, -1 difficult, nothing where nobody knows,
    which weighs nothing. A column `split` names the split of each row. A picture without labels has none of the
    classes; a picture of which every class is unknown is left out.

    A JSON has COCO's lists `images`, `annotations` and `categories`.

    Where neither a column `split` nor a file for each split tells them apart, the pictures are divided into `train`,
    `validation` and `test`, stratified by class. That depends on file names, labels and `seed`, not on the order of
    the rows.

    Args:
        source: the CSV or JSON; or a folder that holds one, or one a split: `train.csv`, `val.csv`, `test.csv`.
        images: the folder to which the table's files are relative; by default the table's own.
        classes: their names in order, or a text file with one a line. By default those of the table: a JSON's
            categories by id, the labels of a CSV by name, or its columns in order.
        name: the prepared set's folder name.
        val_fraction: share of the split `validation`, where the table names no splits.
        test_fraction: share of the split `test`, likewise.
        seed: of that division.
        licence: the terms of the pictures, for people.
        check_files: see now whether every picture is there, and not only when it is built.

    Raises:
        ValueError, FileNotFoundError: what is wrong, in which file and line.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"`name` may have letters, digits, _ and -. Received: {name!r}")
    given = _given_classes(classes)
    tables = _find_tables(Path(source), given)
    root = Path(images) if images is not None else tables[0].path.parent
    if not root.is_dir():
        raise FileNotFoundError(f"{root}, the folder of the pictures, is not there.")

    scan = _scan(tables, root, given, check_files)
    classes = given or tables[0].declared or tuple(sorted(scan.labels))
    if not classes:
        raise ValueError(f"{source} has no label in any of its {len(scan.hashes)} rows.")
    split_of_row: np.ndarray | None = None
    names = sorted(scan.splits, key=lambda split: (split != "train", split))
    rule = "as in the table"
    if not names:
        names, shares = _shares(val_fraction, test_fraction)
        split_of_row = _divide(scan, classes, shares, seed)
        counts = np.bincount(split_of_row, minlength=len(names))
        if not counts.all():
            empty = int(counts.argmin())
            raise ValueError(
                f"{source} has {len(scan.hashes)} pictures, too few to give the split `{names[empty]}` its share of"
                f" {shares[empty]:g}. Add pictures, or change the fractions."
            )
        rule = f"divided {' : '.join(f'{share:g}' for share in shares)}, stratified by class, seed {seed}"

    skipped: dict[str, list[Skip]] = {split: [] for split in names}
    splits: dict[str, Callable[[], Iterator[Sample]]] = {
        split: functools.partial(
            _samples,
            [table for table in tables if table.split in (None, split)],
            root,
            classes,
            split,
            None if split_of_row is None else split_of_row == place,
            skipped[split],
        )
        for place, split in enumerate(names)
    }
    ignored = sorted({column for table in tables for column in table.ignored})
    return RawSet(
        name=name,
        classes=classes,
        splits=splits,
        source=", ".join(f"{table.path.name} (sha256 {file_sha256(table.path)[:16]})" for table in tables)
        + f"; splits {rule}"
        + (f"; columns not read: {', '.join(ignored)}" if ignored else ""),
        licence=licence,
        skipped=skipped,
    )


def _given_classes(classes: Path | str | Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = read_class_names(Path(classes)) if isinstance(classes, Path | str) else tuple(classes)
    for name in names:
        if not name or name != name.strip() or SEPARATOR in name:
            raise ValueError(
                f"A class name must not be empty, have space around it or a `;`. Received: {name!r}"
            )
        if names.count(name) > 1:
            raise ValueError(f"The class `{name}` is named twice.")
    return names


# --- Tables: a file in, rows out --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
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

    @property
    def where(self) -> str:
        return f"{self.table}, {self.place}"


class _Table:
    """A file of rows.

    Attributes:
        path: the file.
        split: the split of all its rows, where the file's name tells it.
        declared: the classes that it names outside of its rows, or None.
        ignored: columns that are not read.
        names_splits: whether each row names its split.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        self.path = path
        self.split = split
        self.declared: tuple[str, ...] | None = None
        self.ignored: tuple[str, ...] = ()
        self.names_splits = False

    def rows(self) -> Iterator[_Row]:
        raise NotImplementedError


def _find_tables(source: Path, given: tuple[str, ...] | None) -> list[_Table]:
    if not source.exists():
        near = nearest(source.name, os.listdir(source.parent)) if source.parent.is_dir() else ""
        raise FileNotFoundError(f"{source} is not there.{near}")
    if source.is_file():
        return [_open_table(source, None, given)]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".json"))
    if not found:
        raise FileNotFoundError(f"{source} holds no CSV and no JSON. Name the table itself, or its folder.")
    if len(found) == 1:
        return [_open_table(found[0], None, given)]
    stems = [path.stem.removeprefix("instances_") for path in found]
    if not set(stems) <= set(SPLIT_NAMES) or len({SPLIT_NAMES[stem] for stem in stems}) < len(stems):
        raise ValueError(
            f"{source} holds {', '.join(path.name for path in found[:6])}: name the one to read, or have one a"
            " split, named train, val and test."
        )
    tables = [_open_table(path, SPLIT_NAMES[stem], given) for path, stem in zip(found, stems, strict=True)]
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


def _open_table(path: Path, split: str | None, given: tuple[str, ...] | None) -> _Table:
    if path.suffix.lower() == ".json":
        return _Json(path, split)
    if path.suffix.lower() == ".csv":
        return _Csv(path, split, given)
    raise ValueError(f"{path}: a table must be a .csv or a .json file.")


class _Json(_Table):
    """A COCO-style JSON, held in memory."""

    def __init__(self, path: Path, split: str | None) -> None:
        super().__init__(path, split)
        self._instances = read_instances(path)
        self.declared = tuple(self._instances.categories.values())

    def rows(self) -> Iterator[_Row]:
        instances = self._instances
        index = {category: place for place, category in enumerate(instances.categories)}
        names = list(instances.categories.values())
        for image in instances.images:
            present, boxes, box_labels = labels_of(instances.objects.get(image.id, []), index)
            yield _Row(
                table=self.path,
                place=f"image {image.id}",
                file=image.file_name,
                present=tuple(names[label] for label in present),
                split=self.split,
                boxes=boxes,
                box_labels=tuple(names[label] for label in box_labels),
            )


class _Csv(_Table):
    """A CSV, read anew at every iteration: a column of labels, or a column per class."""

    def __init__(self, path: Path, split: str | None, given: tuple[str, ...] | None) -> None:
        super().__init__(path, split)
        _, cells = next(self._lines(), (0, []))
        header = [cell.strip() for cell in cells]
        others = [column for column in header if column not in COLUMNS]
        if "file" not in header:
            has = f"It has {', '.join(header)[:200]}." if header else "It is empty."
            hint = " Columns are separated by commas." if len(header) == 1 else nearest("file", header)
            raise ValueError(f"{path} has no column `file`. {has}{hint}")
        for column in header:
            if header.count(column) > 1:
                raise ValueError(f"{path} has two columns `{column}`.")
        if "labels" in header:
            classes, self.ignored = [], tuple(others)
        elif given is None:
            classes, self.declared = others, tuple(others)
        else:
            for name in given:
                if name not in others:
                    raise ValueError(
                        f"{path} has neither a column `labels` nor one of the class `{name}`.{nearest(name, others)}"
                    )
            classes, self.ignored = list(given), tuple(column for column in others if column not in given)
        for column in others if given is None else self.ignored:
            for known in difflib.get_close_matches(column.lower(), set(COLUMNS) - set(header), 1, cutoff=0.8):
                raise ValueError(f"{path} has a column `{column}`. Did you mean `{known}`?")
        if not classes and "labels" not in header:
            raise ValueError(f"{path} has neither a column `labels` nor a column per class.")
        if classes and "difficult" in header:
            raise ValueError(
                f"{path}: in a column per class, -1 says difficult; drop the column `difficult`."
            )
        self.names_splits = "split" in header
        self._place = {column: place for place, column in enumerate(header)}
        self._class_columns = classes

    def rows(self) -> Iterator[_Row]:
        place = self._place
        labels_of_row = self._labels_from_columns if self._class_columns else self._labels_from_cell
        for line, cells in itertools.islice(self._lines(), 1, None):
            where = f"{self.path}, line {line}"
            if len(cells) != len(place):
                raise ValueError(
                    f"{where}: {len(cells)} fields, but {len(place)} in the header. Labels are separated by `;`,"
                    " and a field with a comma in it is quoted."
                )
            split = self.split
            if self.names_splits:
                named = cells[place["split"]].strip()
                split = SPLIT_NAMES.get(named, named)
                if not re.fullmatch(r"[A-Za-z0-9_]+", split):
                    raise ValueError(
                        f"{where}: `split` must be a name of letters, digits and _. Received: {named!r:.40}"
                    )
            present, difficult, unknown = labels_of_row(where, cells)
            yield _Row(
                *(self.path, f"line {line}", cells[place["file"]].strip(), present, difficult, unknown, split)
            )

    def _labels_from_cell(self, where: str, cells: list[str]) -> tuple[tuple[str, ...], ...]:
        """The present, difficult and unknown classes of a row with a cell of labels."""
        difficult = _names_in(cells[self._place["difficult"]]) if "difficult" in self._place else ()
        return _names_in(cells[self._place["labels"]]) + difficult, difficult, ()

    def _labels_from_columns(self, where: str, cells: list[str]) -> tuple[tuple[str, ...], ...]:
        """The same of a row with a cell per class."""
        found: dict[str, list[str]] = {PRESENT: [], ABSENT: [], DIFFICULT: [], UNKNOWN: []}
        for name in self._class_columns:
            cell = cells[self._place[name]].strip()
            if cell not in CELLS:
                hint = "" if self.declared is None else " If that is no class, give the names of the classes."
                raise ValueError(
                    f"{where}, column `{name}`: expected 1, 0, -1 or nothing. Received: {cell!r:.40}.{hint}"
                )
            found[CELLS[cell]].append(name)
        return tuple(found[PRESENT] + found[DIFFICULT]), tuple(found[DIFFICULT]), tuple(found[UNKNOWN])

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of each row that is not blank, the header first."""
        with open(self.path, newline="", encoding="utf-8-sig") as file:
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


def _names_in(cell: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in cell.split(SEPARATOR) if name.strip())


# --- First reading: check every row, find classes and splits ----------------------------------------------------


@dataclasses.dataclass
class _Scan:
    """What the first reading found.

    Attributes:
        hashes: (rows,) uint64, of the rows' ids.
        label_sets: of each row; none where the tables name the splits.
        labels: all that were met.
        splits: those that the tables name.
    """

    hashes: np.ndarray
    label_sets: list[tuple[str, ...]]
    labels: set[str]
    splits: set[str]


def _scan(tables: Sequence[_Table], root: Path, given: tuple[str, ...] | None, check_files: bool) -> _Scan:
    hashes = bytearray()
    label_sets: list[tuple[str, ...]] = []
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows with equal labels share one tuple
    labels: set[str] = set()
    splits: set[str] = set()
    for row in itertools.chain.from_iterable(table.rows() for table in tables):
        relative = _below_root(row, root)
        if check_files and not os.path.isfile(root / relative):
            raise FileNotFoundError(
                f"{row.where}: {root / relative} is not there.{_nearest_file(root / relative)}"
            )
        if not labels.issuperset(row.present):
            for name in row.present:
                if given is not None and name not in given:
                    raise ValueError(f"{row.where}: `{name}` is not a class.{nearest(name, given)}")
            labels.update(row.present)
        if row.split is None:
            label_sets.append(shared.setdefault(row.present, row.present))
        else:
            splits.add(row.split)
        hashes += sort_key(_id_of(relative))
    names = ", ".join(str(table.path) for table in tables)
    if not hashes:
        raise ValueError(f"{names}: there is not one picture in it.")
    if len({split.casefold() for split in splits}) < len(splits):
        raise ValueError(f"{names}: splits that differ by case only: {', '.join(sorted(splits))}.")
    scan = _Scan(np.frombuffer(hashes, ">u8").astype(np.uint64), label_sets, labels, splits)
    _refuse_duplicates(tables, root, scan.hashes)
    return scan


def _below_root(row: _Row, root: Path) -> str:
    """The file of a row, relative to the root, which it must not leave."""
    if _PLAIN_PATH.fullmatch(row.file):
        return row.file
    if not row.file or "\0" in row.file:
        raise ValueError(f"{row.where}: `file` names no file. Received: {row.file!r:.40}")
    relative = os.path.relpath(os.path.join(os.path.abspath(root), row.file), os.path.abspath(root))
    if relative.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(f"{row.where}: {row.file} is outside of {root}, the folder of the pictures.")
    return relative


# A path without anything to resolve, which is also a valid id: nearly all are, and take no further work.
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def _id_of(relative: str) -> str:
    """A picture's id: its path below the root; with a hash of it, where characters had to be replaced."""
    replaced = re.sub(r"[^A-Za-z0-9_./-]", "_", relative)
    if replaced == relative:
        return relative
    return f"{replaced}-{hashlib.blake2b(relative.encode(), digest_size=8).hexdigest()}"


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor is its folder {path.parent}."
    with os.scandir(path.parent) as entries:
        return nearest(path.name, [entry.name for entry in itertools.islice(entries, 10_000)])


def _refuse_duplicates(tables: Sequence[_Table], root: Path, hashes: np.ndarray) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    first: dict[str, str] = {}
    for row in itertools.chain.from_iterable(table.rows() for table in tables if suspects):
        id = _id_of(_below_root(row, root))
        if int.from_bytes(sort_key(id), "big") in suspects and first.setdefault(id, row.where) != row.where:
            raise ValueError(f"{row.where}: {row.file} was there already, in {first[id]}. One row a picture.")


# --- Splits and samples -----------------------------------------------------------------------------------------


def _shares(val_fraction: float, test_fraction: float) -> tuple[list[str], list[float]]:
    """The splits that a table is divided into, and the share of each."""
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"`{name}` must lie in [0, 1). Received: {fraction}")
    if val_fraction + test_fraction >= 1:
        raise ValueError(f"The fractions {val_fraction} and {test_fraction} leave nothing to train on.")
    shares = {"train": 1 - val_fraction - test_fraction, "validation": val_fraction, "test": test_fraction}
    kept = {split: share for split, share in shares.items() if share}
    return list(kept), list(kept.values())


def _divide(scan: _Scan, classes: tuple[str, ...], shares: list[float], seed: int) -> np.ndarray:
    index = {name: place for place, name in enumerate(classes)}
    indices = {names: tuple(sorted({index[name] for name in names})) for names in set(scan.label_sets)}
    return stratified_split(
        [indices[names] for names in scan.label_sets], seeded_keys(scan.hashes, seed), shares
    )


def _samples(
    tables: Sequence[_Table],
    root: Path,
    classes: tuple[str, ...],
    split: str,
    chosen: np.ndarray | None,
    skipped: list[Skip],
) -> Iterator[Sample]:
    """The samples of one split; `chosen`: (rows,) bool, where the rows do not name their split themselves."""
    index = {name: place for place, name in enumerate(classes)}
    skipped.clear()

    def indices(names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(sorted({index[name] for name in names}))

    for number, row in enumerate(itertools.chain.from_iterable(table.rows() for table in tables)):
        if row.split != split if chosen is None else not chosen[number]:
            continue
        relative = _below_root(row, root)
        if len(row.unknown) == len(classes):
            skipped.append(Skip(id=_id_of(relative), why="every class is unknown"))
            continue
        yield Sample(
            id=_id_of(relative),
            image=root / relative,
            present=indices(row.present),
            difficult=indices(row.difficult),
            unknown=indices(row.unknown),
            boxes=row.boxes,
            box_labels=tuple(index[name] for name in row.box_labels),
        )
