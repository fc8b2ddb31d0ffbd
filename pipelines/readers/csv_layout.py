"""Find out from a CSV's header and first rows what each column says; where that can't be known, ask the user."""

import collections
import csv
import dataclasses
import difflib
import functools
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipelines.files import naming
from pipelines.readers.labels import find_separator
from pipelines.readers.rows import PICTURE_ENDINGS, SEPARATOR, Told, clean, split_named
from pipelines.readers.values import FILE_NAMES, LABEL_NAMES, check_columns, plain
from pipelines.words import listed, nearest

COLUMNS = ("file", "labels", "difficult", "split")
PRESENT, ABSENT, DIFFICULT, UNKNOWN = "present", "absent", "difficult", "unknown"
CELLS = {"1": PRESENT, "0": ABSENT, "-1": DIFFICULT, "": UNKNOWN}  # in a column per class
CELLS |= {"1.0": PRESENT, "0.0": ABSENT, "-1.0": DIFFICULT}  # as pandas writes a column that has gaps
WORDS = {"true": PRESENT, "false": ABSENT, "yes": PRESENT, "no": ABSENT, "y": PRESENT, "n": ABSENT}
WORDS |= {"t": PRESENT, "f": ABSENT}
LETTERS = {word for word in WORDS if len(word) == 1}
SAMPLED = 1000  # rows, from which the columns are guessed
FIELD_BYTES = 2**20  # at most so many in one cell
SPLIT_COLUMNS = ("split", "is_valid", "partition", "subset")
NAMELESS = re.compile("|Unnamed: [0-9]+")  # a column without a name, in a file and as pandas writes it again
# What Label Studio's CSV says of the work, besides the labels.
LABEL_STUDIO = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time"}
# Labels that mean "none of the classes", if they never stand beside another label.
NONE_LABELS = ("No Finding", "no finding", "none", "None")
# Columns by which a table of CheXpert's is recognised: there, -1 says that the report was uncertain.
CHEXPERT = {"Enlarged Cardiomediastinum", "Lung Opacity", "Pleural Effusion"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the columns of a CSV say.

    Attributes:
        encoding, delimiter: of the file.
        header: names of the columns.
        file, labels, difficult, split, group: columns, None where there is none.
        class_columns: the columns that stand for one class each, in order.
        ignored: columns that are not read.
        cells: text of a cell of such a column -> what it says.
        minus_one_told: whether it is known what -1 means.
        separator: between the labels of a cell.
        none_label: the label that says that none of the classes is there.
        exact: whether it is our own form, in which nothing has to be guessed.
        remarks: what was guessed.
    """

    encoding: str
    delimiter: str
    header: tuple[str, ...]
    file: str
    labels: str | None
    class_columns: tuple[str, ...]
    ignored: tuple[str, ...]
    cells: dict[str, str]
    minus_one_told: bool
    separator: str = SEPARATOR
    none_label: str | None = None
    difficult: str | None = None
    split: str | None = None
    group: str | None = None
    exact: bool = True
    remarks: tuple[str, ...] = ()


def read_layout(path: Path, told: Told) -> Layout:
    """What the columns of a CSV say.

    Raises:
        ValueError: something can't be known; names the option that tells it.
    """
    encoding, delimiter = _find_form(path)
    sample = list(itertools.islice(read_lines(path, encoding, delimiter), SAMPLED + 1))
    if not sample:
        raise ValueError(f"{path} is empty.")
    header = [clean(cell) for cell in sample[0][1]]
    rows = [without_empty_end(cells, len(header)) for _, cells in sample[1:]]
    remarks = []
    if delimiter != "," and path.suffix.lower() == ".csv":
        remarks.append(f"columns are separated by {'a tab' if delimiter == chr(9) else f'`{delimiter}`'}")
    if encoding == "utf-16":
        remarks.append("the text is UTF-16")
    while len(header) > 1 and not header[-1] and rows and all(len(row) == len(header) - 1 for row in rows):
        header.pop()
        remarks.append("the header has one empty field more than the rows")
    if twice := next((c for c, count in collections.Counter(header).items() if c and count > 1), None):
        raise ValueError(f"{path} has two columns `{twice}`. Rename or remove one of them.")
    check_columns(path, header, told)
    layout = _own(path, header, rows, told) if _is_own(header, told) else _guess(path, header, rows, told)
    if layout.labels is not None:
        cells = _cells_of(header, _places(header), rows, layout.labels)
        remarks += _say_of_labels(layout.labels, [cell for cell in cells if cell])
    return dataclasses.replace(
        layout, encoding=encoding, delimiter=delimiter, remarks=(*remarks, *layout.remarks)
    )


def read_lines(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row with something in one of its cells, the header first."""
    csv.field_size_limit(FIELD_BYTES)
    before = 0  # the last line of the row before
    with open(path, newline="", encoding=encoding) as file, naming(path):
        reader = csv.reader(file, strict=True, delimiter=delimiter)
        try:
            for cells in reader:
                if any(cells):  # Excel writes lines of commas for rows that were emptied
                    yield reader.line_num, cells
                before = reader.line_num
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 text{_first_undecodable(path)}: {error.reason}. Save it as UTF-8."
            ) from None
        except (csv.Error, UnicodeError) as error:
            if reader.line_num > before + 1:  # only a quoted cell goes on in the next line
                raise ValueError(
                    f"{path}, line {before + 1}: a quotation mark is opened and not closed in this line: {error}"
                ) from None
            raise ValueError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def without_empty_end(cells: list[str], columns: int) -> list[str]:
    """The cells of a row, less an empty one that it has behind those of the header: a comma at the line's end."""
    return cells[:-1] if len(cells) == columns + 1 and not cells[-1].strip() else cells


def _first_undecodable(path: Path) -> str:
    """The first line that is not UTF-8, with what it holds, to be put into an error message."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f", first in line {number}, {line.strip()[:40].decode('latin-1')!r} if it is Latin-1"
    return ""


def _find_form(path: Path) -> tuple[str, str]:
    """A CSV's encoding and what separates its columns."""
    with path.open("rb") as file, naming(path):
        head = file.read(2**16)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head[: len(head) & ~1].decode(encoding, "replace").lstrip("\r\n")
    first = re.sub('"[^"]*"', "", text.splitlines()[0]) if text else ""
    if "\t" in first:
        return encoding, "\t"
    return encoding, ";" if ";" in first and "," not in first else ","


def _is_own(header: Sequence[str], told: Told) -> bool:
    return "file" in header and told.file_column in (None, "file") and told.labels_column in (None, "labels")


# --- Our own form, which is exact ---------------------------------------------------------------------------------


def _own(path: Path, header: list[str], rows: list[list[str]], told: Told) -> Layout:
    split = next((name for name in ("split", "is_valid") if name in header), None)
    used = {*COLUMNS, split, told.group_column}
    others = [c for c in header if c not in used and not NAMELESS.fullmatch(c)]
    joins_labels, places = "labels" in header, _places(header)
    missing = set(COLUMNS) - places.keys()
    class_columns: list[str] = []
    ignored = others
    if not joins_labels:
        class_columns = others if told.classes is None else list(told.classes)
        ignored = [] if told.classes is None else [c for c in others if c not in told.classes]
    for name in class_columns:
        if name not in places:
            raise ValueError(
                f"{path} has neither a column `labels` nor one of the class `{name}`.{nearest(name, others)}"
            )
    of_classes = set(class_columns)
    for column in others if told.classes is None else ignored:
        for known in difflib.get_close_matches(column.lower(), missing, 1, cutoff=0.8):
            raise ValueError(f"{path} has a column `{column}`. Did you mean `{known}`?")
        is_class = _is_of_a_class(_cells_of(header, places, rows, column), CELLS)
        if column in of_classes and plain(column) in LABEL_NAMES and not is_class:
            raise ValueError(
                f"{path} has no column `labels`: --labels-column {column} says that `{column}` holds the labels."
            )
        if joins_labels and plain(column) in ("label", "tags"):
            raise ValueError(
                f"{path} has both `labels` and `{column}`: --labels-column says which holds the labels."
            )
    if not class_columns and not joins_labels:
        raise ValueError(f"{path} has neither a column `labels` nor a column per class.")
    if class_columns and "difficult" in header:
        raise ValueError(f"{path}: in a column per class, -1 says difficult; drop the column `difficult`.")
    cells = CELLS | {"-1": told.minus_one or DIFFICULT, "-1.0": told.minus_one or DIFFICULT}
    return Layout(
        encoding="",
        delimiter="",
        header=tuple(header),
        file="file",
        labels="labels" if joins_labels else None,
        class_columns=tuple(class_columns),
        ignored=_not_read(header, {*used, *class_columns}),
        cells=cells,
        minus_one_told=told.minus_one is not None,
        separator=told.separator or SEPARATOR,
        none_label=told.none_label,
        difficult="difficult" if "difficult" in header else None,
        split=split,
        group=told.group_column,
    )


# --- Others' forms, which are guessed -----------------------------------------------------------------------------


def _guess(path: Path, header: list[str], rows: list[list[str]], told: Told) -> Layout:
    places = _places(header)
    cells_of = functools.partial(_cells_of, header, places, rows)
    file = told.file_column or _find_file(path, header, rows)
    split = _find_split(header, rows, {file, told.labels_column, told.group_column})
    others = [c for c in header if not NAMELESS.fullmatch(c) and c not in (file, split, told.group_column)]
    if set(header) >= LABEL_STUDIO:
        others = [c for c in others if c not in LABEL_STUDIO]
    cells = CELLS | WORDS | {"-1": told.minus_one or DIFFICULT, "-1.0": told.minus_one or DIFFICULT}
    of_classes = dict.fromkeys(c for c in others if _is_of_a_class(cells_of(c), cells))
    # A column of 0 and 1 beside others of 0 and 1 is a class, whatever its name.
    labels = told.labels_column or _find_labels(
        path, [c for c in others if len(of_classes) < 2 or c not in of_classes]
    )
    remarks: list[str] = []
    separator, none_label, class_columns = told.separator or SEPARATOR, told.none_label, []
    minus_one_told = told.minus_one is not None
    if labels is not None:
        if told.separator is None:
            separator = find_separator(path, cells_of(labels), told.classes)
        if none_label is None:
            none_label = _find_none_label(cells_of(labels), separator, told.classes or ())
    else:
        class_columns = list(of_classes)
        if told.classes is not None:
            class_columns = list(told.classes)
            for name in class_columns:
                if name not in places:
                    raise ValueError(f"{path} has no column of the class `{name}`.{nearest(name, others)}")
        if not class_columns:
            raise ValueError(
                f"{path} has no column whose name says labels, and none of 0 and 1 for a class:"
                f" --labels-column says which holds the labels. It has {listed(header)}.{_no_header(header)}"
                f"{_first_rows(rows)}. A column for a class holds 1 and 0, True and False or yes and no, and nothing"
                " where nobody knows."
            )
        if not minus_one_told and set(class_columns) >= CHEXPERT:
            minus_one_told = True
            cells |= {"-1": UNKNOWN, "-1.0": UNKNOWN}
            remarks.append("-1 is read as unknown: these are CheXpert's columns, where it says uncertain")
    used = {file, labels, split, told.group_column, *class_columns}
    return Layout(
        encoding="",
        delimiter="",
        header=tuple(header),
        file=file,
        labels=labels,
        class_columns=tuple(class_columns),
        ignored=_not_read(header, used),
        cells=cells,
        minus_one_told=minus_one_told,
        separator=separator,
        none_label=none_label,
        split=split,
        group=told.group_column,
        exact=False,
        remarks=tuple(remarks),
    )


def _find_file(path: Path, header: list[str], rows: list[list[str]]) -> str:
    """The column that names the pictures: by its name, or as the only one whose cells end like picture files."""
    places = _places(header)
    of_files = [
        column
        for column in header
        if (cells := [c for c in _cells_of(header, places, rows, column) if c])
        and all(_ends_as_a_picture(c) for c in cells)
    ]
    by_name = sorted(
        (column for column in header if plain(column) in FILE_NAMES),
        key=lambda column: (column not in of_files, FILE_NAMES.index(plain(column))),
    )
    maybe = dict.fromkeys([*of_files, *(c for c in by_name[:1] if plain(c) not in ("id", "name"))])
    if of_files and len(maybe) > 1:
        raise ValueError(
            f"{path} has several columns of files, {listed(maybe)}: --file-column says which is meant."
        )
    if of_files:
        return of_files[0]
    if by_name and by_name[0] != header[0] and plain(by_name[0]) in ("id", "name"):
        by_name = []
    if by_name and ("file" not in map(str.lower, header) or rows):
        return by_name[0]
    has = f"It has {', '.join(header)[:200]}."
    hint = " Columns are separated by commas." if len(header) == 1 else nearest("file", header)
    raise ValueError(
        f"{path} has no column `file`. {has}{hint} --file-column names the column of the pictures."
        f"{_no_header(header)}{_first_rows(rows)}"
    )


def _find_split(header: list[str], rows: list[list[str]], used: Collection[str | None]) -> str | None:
    """The column that names the split of each row: by its name, or as the only one whose cells name splits."""
    places = _places(header)
    columns = [column for column in header if column and column not in used]
    named = [column for column in columns if column.lower() in SPLIT_COLUMNS]
    others = [column for column in columns if plain(column) not in LABEL_NAMES]
    by_cells = [
        c for c in others if (cells := _cells_of(header, places, rows, c)) and all(map(split_named, cells))
    ]
    if not named and len(by_cells) > 1:
        raise ValueError(f"{listed(by_cells)} both name splits: rename one of them `split`, or remove one.")
    return next(iter(named or by_cells), None)


def _places(header: Sequence[str]) -> dict[str, int]:
    """Column -> its place: a table may have a column for each of thousands of classes."""
    return {column: place for place, column in enumerate(header)}


def _cells_of(header: list[str], places: dict[str, int], rows: list[list[str]], column: str) -> list[str]:
    place = places[column]
    return [row[place].strip() for row in rows if len(row) == len(header)]


def _not_read(header: list[str], used: Collection[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column or "one without a name" for column in header if column not in used))


def _find_labels(path: Path, columns: list[str]) -> str | None:
    found = [column for column in columns if plain(column) in LABEL_NAMES]
    if len(found) > 1:
        raise ValueError(
            f"{path} has {' and '.join(f'`{c}`' for c in found)}: --labels-column says which holds the labels."
        )
    return found[0] if found else None


def _is_of_a_class(cells: list[str], known: dict[str, str]) -> bool:
    """Whether a column says if each picture shows a class: so do most of its cells that are not blank.

    If it has letters, all of them do: `F` beside `M` is no `False`.
    """
    filled = [cell for cell in cells if cell]
    if not LETTERS.isdisjoint(map(str.lower, filled)):
        return all(cell in known or cell.lower() in WORDS for cell in filled)
    good = sum(cell in known or cell.lower() in WORDS for cell in filled)
    return bool(filled) and 2 * good > len(filled)


def _find_none_label(cells: list[str], separator: str, classes: Sequence[str]) -> str | None:
    for label in NONE_LABELS:
        if label in classes:
            continue
        alone = [cell for cell in cells if cell == label]
        if alone and not any(
            label in map(str.strip, cell.split(separator)) for cell in cells if cell != label
        ):
            return label
    return None


def _ends_as_a_picture(cell: str) -> bool:
    return cell.lower().endswith(PICTURE_ENDINGS)


def _say_of_labels(column: str, cells: list[str]) -> list[str]:
    """What is worth saying about the cells of labels, for a person."""
    if cells and all(re.fullmatch("[0-9]+", cell.strip()) for cell in cells):
        return [f"the labels in {column} are numbers, which become the names of the classes"]
    if (
        example := next((cell.strip() for cell in cells if cell.strip()[:1] in ("[", "{")), None)
    ) is not None:
        return [f"lists in {column}, as in {example:.40}, are read as lists"]
    return []


def _no_header(header: Sequence[str]) -> str:
    """The end of an error message about a header that looks like a row."""
    if not any(_ends_as_a_picture(cell) for cell in header):
        return ""
    return (
        " Its first line looks like a row: where there are no names of columns, put `file,labels` above it."
    )


def _first_rows(rows: Sequence[Sequence[str]]) -> str:
    shown = " / ".join(" | ".join(cell[:24] for cell in row[:6]) for row in rows[:3])
    return f" Its first rows: {shown[:300]}" if shown else ""
