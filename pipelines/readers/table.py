"""Your own pictures: a CSV or a COCO-style JSON and a folder of pictures in, labelled samples out.

A CSV is read row by row, and more than once: first to check it, to find its classes and to divide it, then again as
the samples of a split are asked for. In between only a hash and, where the split is ours to choose, the labels of
each row are kept: so a table of many millions of rows fits into memory.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.files import file_sha256
from pipelines.readers.classes import read_class_names
from pipelines.readers.labels import check_labels
from pipelines.readers.stratify import seeded_keys, stratified_split
from pipelines.readers.table_files import SEPARATOR, SPLIT_NAMES, MinusOne, Row, Table, find_tables
from pipelines.records import sort_key
from pipelines.samples import RawSet, Sample, Skip, check_class_name, check_class_names
from pipelines.words import nearest


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
    separator: str = SEPARATOR,
    minus_one: MinusOne | None = None,
    check_files: bool = True,
) -> RawSet:
    """Pictures of your own and what is in them.

    A CSV (UTF-8, commas) has a column `file` and either `labels`, separated by `;`, with `difficult` (more labels,
    hard to see) if you like; or a column per class: 1 present, 0 absent, -1 difficult, nothing where nobody knows,
    which weighs nothing. A column `split` names the split of each row. A picture without labels has none of the
    classes; a picture of which every class is unknown is left out.

    What is guessed stands in the set's `remarks`: a column that is not read, -1 beside 0. What can't be known is
    refused: labels that look joined by something else, -1 where no cell is 0, labels that differ by case only.

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
        separator: what stands between the labels of a cell.
        minus_one: what -1 says in a column per class: `difficult`, `absent` or `unknown`.
        check_files: see now whether every picture is there, and not only when it is built.

    Raises:
        ValueError, FileNotFoundError: what is wrong, in which file and line.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"`name` may have letters, digits, _ and -. Received: {name!r}")
    separator = "\t" if separator == "\\t" else separator  # as one types it
    if not separator.strip(" ") and separator != " ":
        raise ValueError(f"`separator` must be a text, such as ; or | or one space. Received: {separator!r}")
    given = _given_classes(classes, separator)
    tables = find_tables(Path(source), given, separator, minus_one)
    root = Path(images) if images is not None else tables[0].path.parent
    if not root.is_dir():
        raise FileNotFoundError(f"{root}, the folder of the pictures, is not there.")

    scan = _scan(tables, root, given, check_files)
    if not scan.labels:
        raise ValueError(f"{source} has no label in any of its {len(scan.hashes)} rows.")
    classes = given or tables[0].declared or tuple(sorted(scan.labels))
    if given is None:
        check_labels(scan.labels, classes, separator if tables[0].joins_labels else None)
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
    remarks = list(dict.fromkeys(remark for table in tables for remark in table.remarks))
    if ignored:
        remarks.append(f"columns that are not read: {', '.join(ignored)[:200]}")
    return RawSet(
        name=name,
        classes=classes,
        splits=splits,
        source=", ".join(f"{table.path.name} (sha256 {file_sha256(table.path)[:16]})" for table in tables)
        + f"; splits {rule}"
        + (f"; columns not read: {', '.join(ignored)}" if ignored else ""),
        licence=licence,
        skipped=skipped,
        remarks=remarks,
    )


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
        hashes: (rows,) uint64, of the rows' ids.
        label_sets: of each row; none where the tables name the splits.
        labels: all that were met, and where each was first.
        splits: those that the tables name.
    """

    hashes: np.ndarray
    label_sets: list[tuple[str, ...]]
    labels: dict[str, str]
    splits: set[str]


def _scan(tables: Sequence[Table], root: Path, given: tuple[str, ...] | None, check_files: bool) -> _Scan:
    hashes = bytearray()
    label_sets: list[tuple[str, ...]] = []
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows with equal labels share one tuple
    labels: dict[str, str] = {}
    splits: set[str] = set()
    for row in itertools.chain.from_iterable(table.rows() for table in tables):
        relative = _below_root(row, root)
        if check_files and not os.path.isfile(root / relative):
            raise FileNotFoundError(
                f"{row.where}: {root / relative} is not there.{_nearest_file(root / relative)}"
            )
        for name in row.present:
            if name not in labels:
                labels[name] = row.where
                if given is not None and name not in given:
                    raise ValueError(f"{row.where}: `{name:.80}` is not a class.{nearest(name, given)}")
                _check_name(name, row)
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
    for split in splits - set(SPLIT_NAMES.values()):
        if split.casefold() in SPLIT_NAMES:
            raise ValueError(f"{names}: the split `{split}`: did you mean `{SPLIT_NAMES[split.casefold()]}`?")
    scan = _Scan(np.frombuffer(hashes, ">u8").astype(np.uint64), label_sets, labels, splits)
    _refuse_duplicates(tables, root, scan.hashes)
    return scan


def _check_name(name: str, row: Row) -> None:
    try:
        check_class_name(name)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from None


def _below_root(row: Row, root: Path) -> str:
    """The file of a row, relative to the root, which it must not leave."""
    if _PLAIN_PATH.fullmatch(row.file):
        return row.file
    if not row.file or "\0" in row.file:
        raise ValueError(f"{row.where}: `file` names no file. Received: {row.file!r:.40}")
    written = _as_on_disk(row.file, root)
    relative = os.path.relpath(os.path.join(os.path.abspath(root), written), os.path.abspath(root))
    if relative.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(f"{row.where}: {row.file} is outside of {root}, the folder of the pictures.")
    return relative


def _as_on_disk(file: str, root: Path) -> str:
    """The spelling by which a file is there: Windows has back slashes in paths, Macs part accents from letters."""
    usual = file.replace("\\", "/")
    spellings = [
        file,
        usual,
        *(unicodedata.normalize(form, spelling) for spelling in (file, usual) for form in ("NFC", "NFD")),
    ]
    if len(set(spellings)) == 1:
        return file
    return next((spelling for spelling in spellings if os.path.exists(root / spelling)), usual)


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


def _refuse_duplicates(tables: Sequence[Table], root: Path, hashes: np.ndarray) -> None:
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
    tables: Sequence[Table],
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
            measured=row.measured,
        )
