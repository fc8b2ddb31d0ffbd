"""Read your own pictures, from a table such as a CSV or a COCO-style JSON and a folder, as labelled samples.

A CSV is read row by row, and more than once: first to check it, to find its classes and to divide it, then again
whenever the samples of a split are asked for. In between, only a hash of each row is kept and, if we choose its
split, its labels. So a table of many millions of rows fits into memory.
"""

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.files import file_sha256
from pipelines.readers.checked_rows import check_none_label, checked_rows
from pipelines.readers.classes import read_class_names
from pipelines.readers.dividing import divide, refuse_folds, shares_of
from pipelines.readers.labels import check_labels
from pipelines.readers.placing import Places, id_of, nearest_file
from pipelines.readers.rows import SEPARATOR, MinusOne, Row, SameName, Table, Told
from pipelines.readers.table_files import find_tables
from pipelines.readers.understood import say, suspicious_labels, suspicious_splits, swapped, understood
from pipelines.records import sort_key
from pipelines.samples import RawSet, Sample, Skip, check_class_name, check_class_names
from pipelines.words import nearest


def read_table(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Path | str | Sequence[str] | None = None,
    name: str = "table",
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    folds: int | None = None,
    seed: int = 0,
    licence: str = "",
    separator: str | None = None,
    minus_one: MinusOne | None = None,
    file_column: str | None = None,
    labels_column: str | None = None,
    group_column: str | None = None,
    extension: str | None = None,
    none_label: str | None = None,
    same_name: SameName | None = None,
    check_files: bool = True,
) -> RawSet:
    """Read your own pictures and their labels.

    Labels come in many forms, which docs/data.md lists; the result's `read_as` says how these were read.

    In our own form, a CSV (UTF-8, commas) has a column `file` and either a column `labels`, separated by `;`, and if
    you like `difficult` (more labels, hard to see); or a column per class: 1 present, 0 absent, -1 difficult, empty
    where nobody knows, which gets weight 0. A column `split` names the split of each row. A picture without labels
    has none of the classes; a picture of which every class is unknown is left out.

    What was guessed is listed in the set's `remarks`: a column that is not read, -1 beside 0. What can't be known is
    refused: labels that look joined by another separator, -1 where no cell is 0, labels that differ by case only.

    Where neither a column `split` nor a file for each split tells them apart, the pictures are divided into `train`,
    `validation` and `test`, stratified by class. That depends on file names, labels and `seed`, not on the order of
    the rows.

    Args:
        source: the CSV or JSON; or a folder that holds one, or one per split: `train.csv`, `val.csv`, `test.csv`.
        images: the folder to which the table's files are relative; by default the table's own.
        classes: their names in order, or a text file with one per line. By default those of the table: a JSON's
            categories by id, the labels of a CSV by name, or its columns in order.
        name: the prepared set's folder name.
        val_fraction: share of the split `validation`, where the table names no splits; by default a tenth.
        test_fraction: share of the split `test`, likewise.
        folds: into how many equal splits `fold1`, `fold2`, ... to divide the pictures instead, beside a split `test`
            if `test_fraction` is given.
        seed: of that division.
        licence: the terms of the pictures, for people.
        separator: what stands between the labels of a cell.
        file_column: the column, or key, that names the pictures.
        labels_column: the one that holds the labels.
        group_column: the one that says which pictures belong together; they come into one split.
        extension: what is missing at the end of the files' names.
        none_label: the label that says that none of the classes is there.
        same_name: in class folders, whether files of one name in several of them are one picture.
        minus_one: what -1 says in a column per class: `difficult`, `absent` or `unknown`.
        check_files: check now that every picture is there, and not only during the build.

    Raises:
        ValueError, FileNotFoundError: what is wrong, in which file and line.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"`name` may have letters, digits, _ and -. Received: {name!r}")
    told = Told(
        _given_classes(classes, _typed_separator(separator) or SEPARATOR),
        _typed_separator(separator),
        minus_one,
        file_column,
        labels_column,
        f".{extension.lstrip('.')}" if extension else None,
        none_label,
        group_column,
        same_name,
    )
    tables = find_tables(Path(source), told)
    beside = images is None
    root = Path(os.path.commonpath([table.folder for table in tables])) if images is None else Path(images)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}, the folder of the pictures, is not there.")
    try:
        places = Places.find(tables, root, beside=beside, extension=told.extension)
        scan = _scan(tables, places, told.classes, check_files)
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{error}{understood(tables)}") from None
    if not scan.labels:
        raise ValueError(f"{source} has no label in any of its {len(scan.hashes)} rows.")
    classes = told.classes or tables[0].declared or tuple(sorted(scan.labels))
    classes = tuple(name for name in classes if name != told.none_label)
    if told.classes is None:
        separator = next((table.separator for table in tables if table.joins_labels), None)
        check_labels(scan.labels, classes, separator, told=told.separator is not None)
    names, split_of_row, rule = _split_rows(source, scan, classes, (val_fraction, test_fraction, folds), seed)
    skipped: dict[str, list[Skip]] = {split: [] for split in names}
    splits: dict[str, Callable[[], Iterator[Sample]]] = {
        split: functools.partial(
            _samples,
            tables,
            places,
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
        source=f"{', '.join(_name_and_hash(table.path) for table in tables)}; splits {rule}"
        + (f"; columns not read: {', '.join(ignored)}" if ignored else ""),
        licence=licence,
        skipped=skipped,
        remarks=_remarks(tables, scan, ignored, told),
        read_as=say(tables, places.describe(), len(classes), len(scan.hashes)),
        grouped_by=told.group_column or "",
    )


def _split_rows(
    source: Path | str,
    scan: "_Scan",
    classes: Sequence[str],
    fractions: tuple[float | None, float | None, int | None],
    seed: int,
) -> tuple[list[str], np.ndarray | None, str]:
    """The splits' names; the split of each row if we choose it, else None; and how it was chosen, in words."""
    if scan.splits:
        refuse_folds(source, scan.splits, fractions[-1])
        return sorted(scan.splits, key=lambda split: (split != "train", split)), None, "as in the table"
    names, shares = shares_of(*fractions)
    split_of_row = divide(scan.label_sets, classes, scan.hashes, scan.groups, shares, seed)
    counts = np.bincount(split_of_row, minlength=len(names))
    if not counts.all():
        empty = int(counts.argmin())
        what = "pictures" if scan.groups is None else f"pictures in {scan.groups.max() + 1} groups"
        raise ValueError(
            f"{source} has {len(scan.hashes)} {what}, too few to give the split `{names[empty]}` its share of"
            f" {shares[empty]:g}. Add pictures, or choose other fractions (--val-fraction, --test-fraction; 0 makes"
            " no such split) or fewer --folds."
        )
    rule = f"divided {' : '.join(f'{share:g}' for share in shares)}, stratified by class, seed {seed}"
    return names, split_of_row, rule + (", groups kept together" if scan.groups is not None else "")


def _remarks(tables: Sequence[Table], scan: "_Scan", ignored: list[str], told: Told) -> list[str]:
    remarks = list(dict.fromkeys(remark for table in tables for remark in table.remarks))
    if told.classes is None:
        remarks += suspicious_labels(len(scan.hashes), scan.labels, scan.counts)
    remarks += suspicious_splits(scan.splits)
    if scan.groups is not None:
        remarks.append(f"{int(scan.groups.max()) + 1:,} groups by {told.group_column}, each in one split")
    if ignored:
        remarks.append(f"columns that are not read: {', '.join(ignored)[:200]}")
    return remarks


def _typed_separator(separator: str | None) -> str | None:
    separator = "\t" if separator == "\\t" else separator  # as users type it
    if separator is not None and not separator.strip(" ") and separator != " ":
        raise ValueError(f"`separator` must be a text, such as ; or | or one space. Received: {separator!r}")
    return separator


def _name_and_hash(path: Path) -> str:
    return path.name if path.is_dir() else f"{path.name} (sha256 {file_sha256(path)[:16]})"


def _given_classes(classes: Path | str | Sequence[str] | None, separator: str) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = read_class_names(Path(classes)) if isinstance(classes, Path | str) else tuple(classes)
    check_class_names(names)
    for name in names:
        if separator in name and separator != " ":
            raise ValueError(
                f"A class name must not hold a `{separator}`, which separates labels. Received: {name!r:.80}"
            )
    return names


# --- First reading: check every row, find classes and splits ----------------------------------------------------


@dataclasses.dataclass
class _Scan:
    """What the first reading found.

    Attributes:
        hashes: (rows,) uint64, hashes of the rows' ids.
        label_sets: the labels of each row; empty where the tables name the splits.
        labels: each label that was met -> where it was met first.
        counts: label -> number of rows that have it.
        splits: those that the tables name.
        groups: (rows,) int64, the number of the row's group; None where there are no groups.
    """

    hashes: np.ndarray
    label_sets: list[tuple[str, ...]]
    labels: dict[str, str]
    counts: Counter[str]
    splits: set[str]
    groups: np.ndarray | None


def _scan(tables: Sequence[Table], places: Places, given: tuple[str, ...] | None, check_files: bool) -> _Scan:
    hashes = bytearray()
    label_sets: list[tuple[str, ...]] = []
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows with equal labels share one tuple
    labels: dict[str, str] = {}
    counts: Counter[str] = Counter()
    splits: set[str] = set()
    numbers: dict[str, tuple[int, str | None]] = {}  # group -> its number and its split
    groups: list[int] = []
    for table, row in checked_rows(tables):
        relative = places.path_of(table, row)
        if check_files and not table.holds_pictures and not os.path.isfile(places.root / relative):
            missing = places.root / relative
            raise FileNotFoundError(
                f"{row.where}: {missing} is not there.{swapped(row) or nearest_file(missing)}"
            )
        for name in row.present:
            if name not in labels:
                labels[name] = row.where
                if given is not None and name not in given:
                    raise ValueError(f"{row.where}: `{name:.80}` is not a class.{nearest(name, given)}")
                _check_name(name, row)
        counts.update(row.present)
        if row.group is not None:
            groups.append(_number_group(row, numbers))
        if row.split is None:
            label_sets.append(shared.setdefault(row.present, row.present))
        else:
            splits.add(row.split)
        hashes += sort_key(id_of(relative))
    check_none_label(tables)
    names = ", ".join(str(table.path) for table in tables)
    if not hashes:
        raise ValueError(f"{names}: there is not one picture in it.")
    if len({split.casefold() for split in splits}) < len(splits):
        raise ValueError(f"{names}: splits that differ by case only: {', '.join(sorted(splits))}.")
    scan = _Scan(
        *(np.frombuffer(hashes, ">u8").astype(np.uint64), label_sets, labels, counts, splits),
        groups=np.array(groups, np.int64) if groups else None,
    )
    _refuse_duplicates(tables, places, scan.hashes)
    return scan


def _number_group(row: Row, numbers: dict[str, tuple[int, str | None]]) -> int:
    """The number of a row's group; a blank group, or one that lies in two splits, is refused."""
    if not row.group:
        raise ValueError(f"{row.where}: the cell of its group is blank; give every picture a group.")
    number, split = numbers.setdefault(row.group, (len(numbers), row.split))
    if split != row.split:
        raise ValueError(f"{row.where}: the group {row.group!r:.60} is in {split} and in {row.split}.")
    return number


def _check_name(name: str, row: Row) -> None:
    try:
        check_class_name(name)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from None


def _refuse_duplicates(tables: Sequence[Table], places: Places, hashes: np.ndarray) -> None:
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    first: dict[str, tuple[int, Row]] = {}  # a picture -> the number of its first row, and that row
    for number, (table, row) in enumerate(checked_rows(tables) if suspects else ()):
        id = id_of(places.path_of(table, row))
        if int.from_bytes(sort_key(id), "big") not in suspects:
            continue
        before, other = first.setdefault(id, (number, row))
        if before != number:
            splits = "" if other.split == row.split else f" (splits {other.split} and {row.split})"
            raise ValueError(
                f"{row.where}: {row.file} was there already, in {other.where}{splits}. One row a picture"
                f"{', and the lines of a picture one behind the other' if table.is_long else ''}."
            )


# --- Splits and samples -----------------------------------------------------------------------------------------


def _samples(
    tables: Sequence[Table],
    places: Places,
    classes: tuple[str, ...],
    split: str,
    chosen: np.ndarray | None,
    skipped: list[Skip],
) -> Iterator[Sample]:
    """The samples of one split; `chosen`: (rows,) bool, or None where the rows name their split themselves."""
    index = {name: place for place, name in enumerate(classes)}
    skipped.clear()
    if chosen is None:
        tables = [table for table in tables if table.split in (None, split)]

    @functools.lru_cache(maxsize=4096)
    def indices(names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(sorted({index[name] for name in names}))

    for number, (table, row) in enumerate(checked_rows(tables, with_pictures=True)):
        if row.split != split if chosen is None else not chosen[number]:
            continue
        relative = places.path_of(table, row)
        unknown = indices(row.unknown)
        if row.known is not None:
            sure = {index[name] for name in (*row.known, *row.present) if name in index}
            unknown = tuple(label for label in range(len(classes)) if label not in sure)
        if len(unknown) == len(classes):
            skipped.append(Skip(id=id_of(relative), why="every class is unknown"))
            continue
        if table.holds_pictures and not row.image:
            skipped.append(Skip(id=id_of(relative), why="has no picture in the table"))
            continue
        yield Sample(
            id=id_of(relative),
            image=row.image or places.root / relative,
            present=indices(row.present),
            difficult=indices(row.difficult),
            unknown=unknown,
            boxes=row.boxes,
            box_labels=tuple(index[name] for name in row.box_labels),
            measured=row.measured,
        )
