"""Read the rows of a CSV or a text in columns: with a column of labels, a column per class, or a line per label."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.files import naming
from pipelines.readers.csv_layout import (
    ABSENT,
    DIFFICULT,
    PRESENT,
    UNKNOWN,
    WORDS,
    Layout,
    read_layout,
    read_lines,
    without_empty_end,
)
from pipelines.readers.rows import Row, Table, Told, clean
from pipelines.readers.values import labels_of_text

IS_VALID = {"true": "validation", "1": "validation", "false": "train", "0": "train"}  # fastai's column
PARTITION = {"0": "train", "1": "validation", "2": "test"}  # CelebA's
Labels = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # present, difficult and unknown classes
LONG_FORM = ("ImageID", "LabelName")  # Open Images'
MOST_KEPT = 4096  # different cells of labels whose labels are kept: most rows have the same as others
MARKS = {" ": "blanks", "\t": "tabs", ",": "commas", ";": "`;`", "|": "`|`"}


def open_csv(path: Path, split: str | None, told: Told, folder: Path | None = None) -> Table:
    """The table of a file with columns: CelebA's text, Open Images' long form, or any CSV."""
    with path.open("rb") as file, naming(path):
        head = file.read(2**16).decode("utf-8", "replace").lstrip("\ufeff").splitlines()
    if len(head) > 2 and head[0].strip().isdigit() and len(head[1].split()) == len(head[2].split()) - 1:
        return CelebA(path, split, told, folder)
    if head and set(LONG_FORM) <= {clean(cell) for cell in head[0].split(",")}:
        return LongForm(path, split, told, folder)
    return Csv(path, split, told, folder)


class Csv(Table):
    """A CSV, read anew at every iteration: a column of labels, or a column per class."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        self._layout = layout = read_layout(path, told)
        self._place = {column: place for place, column in enumerate(layout.header)}
        self._met: set[str | None] = set()  # the kinds of cells that were met
        self.exact = layout.exact
        of_celeba = path.name == "list_attr_celeba.csv" and not layout.split
        self._partition = Partition.beside(path, ".csv") if of_celeba else None
        self.names_splits = layout.split is not None or self._partition is not None
        self.joins_labels = layout.labels is not None
        self.separator = layout.separator
        self.none_label = layout.none_label
        self.met_none_label = layout.none_label in layout.class_columns
        self.uses |= {"file_column", "labels_column", "group_column", "extension"}
        self.uses |= {"minus_one"} if layout.class_columns else {"separator"}
        self.ignored = layout.ignored
        if layout.class_columns and told.classes is None:
            self.declared = tuple(c for c in layout.class_columns if c != layout.none_label)
        self.remarks = list(layout.remarks)
        self.read_as = [*_describe(layout), *(self._partition.read_as if self._partition else [])]

    def rows(self) -> Iterator[Row]:
        layout, place = self._layout, self._place
        labels_of_row = self._from_columns() if layout.class_columns else self._from_cells()
        file, group = place[layout.file], None if layout.group is None else place[layout.group]
        splits: dict[str, str] = {}  # as the table names them -> as we do
        partition = self._partition.reader() if self._partition else None
        lines, columns = read_lines(self.path, layout.encoding, layout.delimiter), len(layout.header)
        _, header = next(lines)
        for line, cells in lines:
            if cells == header:
                raise ValueError(
                    f"{self._where(line)}: the header stands here again, as where files were joined. Remove it."
                )
            if len(cells) == columns + 1 and not cells[-1].strip():
                cells = without_empty_end(cells, columns)
                self.remark("some rows have one empty field more than the header")
            if len(cells) != columns:
                raise ValueError(
                    f"{self._where(line)}: {len(cells)} fields, but {columns} in the header. Labels are separated"
                    f" by `{self.separator}`, and a field with a comma in it is quoted."
                )
            split = self.split
            if layout.split is not None:
                named = cells[place[layout.split]]
                if named not in splits:
                    splits[named] = self._split_of(line, named.strip())
                split = splits[named]
            elif partition:
                split = partition(cells[file].strip())
            present, difficult, unknown = labels_of_row(line, cells)
            yield Row(
                *(self.path, f"line {line}", cells[file].strip(), present, difficult, unknown, split),
                group=None if group is None else cells[group].strip(),
            )
        if DIFFICULT in self._met and not layout.minus_one_told:
            if ABSENT not in self._met:
                raise ValueError(
                    f"{self.path} has 1 and -1 in its columns and no 0: does -1 say absent, unknown, or present"
                    " but hard to see? --minus-one absent, unknown or difficult tells."
                )
            self.remark("-1 is read as difficult: present, but hard to see. --minus-one tells otherwise")

    def _where(self, line: int) -> str:
        return f"{self.path}, line {line}"

    def _split_of(self, line: int, named: str) -> str:
        column = str(self._layout.split).lower()
        if column == "is_valid":
            if named.lower() not in IS_VALID:
                raise ValueError(
                    f"{self._where(line)}: `is_valid` must be True or False. Received: {named!r:.40}"
                )
            self.remark("is_valid is read as the split: True is validation, False is train")
            return IS_VALID[named.lower()]
        if column == "partition" and named in PARTITION:
            self.remark("partition is read as the split: 0 is train, 1 validation, 2 test")
            return PARTITION[named]
        return named

    def _from_cells(self) -> Callable[[int, list[str]], Labels]:
        """A function of a line and its cells: the labels of a row with a cell of labels."""
        at = self._place[str(self._layout.labels)]
        difficult_at = None if self._layout.difficult is None else self._place[self._layout.difficult]
        known: dict[tuple[str, str], Labels] = {}

        def labels_of_row(line: int, cells: list[str]) -> Labels:
            said = cells[at], "" if difficult_at is None else cells[difficult_at]
            labels = known.get(said)
            if labels is None:
                where = self._where(line)
                names, difficult = (labels_of_text(where, text, self.separator) for text in said)
                labels = names + difficult, difficult, ()
                if len(known) < MOST_KEPT:
                    known[said] = labels
            return labels

        return labels_of_row

    def _from_columns(self) -> Callable[[int, list[str]], Labels]:
        """A function of a line and its cells: the labels of a row with a cell per class."""
        layout = self._layout
        names = [name for name in layout.class_columns if name != layout.none_label]
        places = [self._place[name] for name in names]
        states = dict(layout.cells)  # a cell -> what it says

        def labels_of_row(line: int, cells: list[str]) -> Labels:
            said = [states.get(cells[place]) for place in places]
            if None in said:
                for name, place in zip(names, places, strict=True):
                    states[cells[place]] = self._state_of(line, name, cells[place].strip())
                said = [states[cells[place]] for place in places]
            self._met.update(said)
            return _by_state(names, said)

        return labels_of_row

    def _state_of(self, line: int, name: str, cell: str) -> str:
        """What a cell of a class says, however it is spelt."""
        if cell in self._layout.cells:
            return self._layout.cells[cell]
        if self._layout.exact or cell.lower() not in WORDS:
            hint = "" if self.declared is None else " If that is no class, give the names of the classes."
            raise ValueError(
                f"{self._where(line)}, column `{name}`: expected 1, 0, -1 or nothing. Received: {cell!r:.40}.{hint}"
            )
        return WORDS[cell.lower()]


def _by_state(names: Sequence[str], states: Sequence[str | None]) -> Labels:
    """The present, difficult and unknown classes of a row, by what is said of each class."""

    def those(state: str) -> tuple[str, ...]:
        if state not in states:
            return ()
        return tuple([name for name, said in zip(names, states, strict=True) if said == state])

    difficult = those(DIFFICULT)
    return those(PRESENT) + difficult, difficult, those(UNKNOWN)


def _describe(layout: Layout) -> Iterator[str]:
    yield f"file = {layout.file}"
    if layout.labels is not None:
        yield f"labels = {layout.labels} by {MARKS.get(layout.separator, f'`{layout.separator}`')}"
        if layout.none_label is not None:
            yield f"`{layout.none_label}` says none of the classes"
    else:
        names = [c for c in layout.class_columns if c != layout.none_label]
        yield f"a column per class ({names[0]}{' to ' + names[-1] if len(names) > 1 else ''})"
    if layout.split is not None:
        yield f"split = {layout.split}"
    if layout.group is not None:
        yield f"groups = {layout.group}"


class Partition:
    """CelebA's `list_eval_partition`, as text or Kaggle's CSV: a file and 0, 1 or 2 a line, in the table's order.

    Args:
        path: the file.
        table: the table whose splits it names.
    """

    def __init__(self, path: Path, table: Path) -> None:
        self.path, self.table = path, table
        self.read_as = [f"split = {path.name}"]

    @classmethod
    def beside(cls, table: Path, suffix: str) -> "Partition | None":
        """The one with this suffix, `.txt` or `.csv`, if it lies where CelebA's folders have it; else None."""
        name = f"list_eval_partition{suffix}"
        folders = (table.parent, table.parent.parent / "Eval", table.parent / "Eval")
        return next((cls(folder / name, table) for folder in folders if (folder / name).is_file()), None)

    def reader(self) -> Callable[[str], str]:
        """A function that gives each file of the table its split, called with one after the other."""
        lines = _words(self.path)
        if self.path.suffix == ".csv":
            next(lines, None)  # the header
            lines = ((line, [cell.strip() for cell in " ".join(words).split(",")]) for line, words in lines)

        def split_of(file: str) -> str:
            line, words = next(lines, (0, [""]))
            if len(words) != 2 or words[0] != file or words[1] not in PARTITION:
                raise ValueError(
                    f"{self.path}, line {line}: expected {file} and 0, 1 or 2, in the order of {self.table.name}."
                    f" Received: {' '.join(words)[:60]!r}"
                )
            return PARTITION[words[1]]

        return split_of


class CelebA(Table):
    """CelebA's text: the number of pictures, the class names, then lines of a file and 1 or -1 for each class."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        lines = self._lines()
        next(lines)
        self.declared = tuple(next(lines)[1])
        self.uses |= {"minus_one", "extension"}
        self._chosen = None if told.classes is None else set(told.classes)
        minus_one = told.minus_one or "absent"
        self._states = {"1": PRESENT, "0": ABSENT, "-1": minus_one}
        self._partition = Partition.beside(path, ".txt")
        self.names_splits = self._partition is not None
        self.read_as = [
            "CelebA's text: file = first word",
            f"-1 = {minus_one}",
            *(self._partition.read_as if self._partition else []),
        ]

    def rows(self) -> Iterator[Row]:
        classes = self.declared or ()
        places = [p for p, name in enumerate(classes) if self._chosen is None or name in self._chosen]
        names = [classes[place] for place in places]
        partition = self._partition.reader() if self._partition else None
        for line, words in itertools.islice(self._lines(), 2, None):
            states = list(map(self._states.get, words[1:]))
            if len(states) != len(classes) or None in states:
                raise ValueError(
                    f"{self.path}, line {line}: expected a file and {len(classes)} times 1 or -1. Received:"
                    f" {' '.join(words)[:60]!r}"
                )
            split = partition(words[0]) if partition else self.split
            labels = _by_state(names, [states[place] for place in places])
            yield Row(*(self.path, f"line {line}", words[0], *labels, split))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        return _words(self.path)


def _words(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(encoding="utf-8-sig") as file, naming(path):
        try:
            for line, text in enumerate(file, start=1):
                if words := text.split():
                    yield line, words
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason}. Save it as UTF-8.") from None


class LongForm(Table):
    """Open Images' form: a line per label, `ImageID,Source,LabelName,Confidence`, a picture's lines in succession.

    A confidence of 1 means present and 0 absent; all other classes are unknown.
    """

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        _, header = next(read_lines(path, "utf-8-sig", ","))
        self._header = [clean(cell) for cell in header]
        self.is_long = True
        self.uses = {"classes", "extension"}
        self._names, described = _read_descriptions(path.parent)
        self.read_as = [
            "a line a label: file = ImageID",
            "labels = LabelName"
            + (
                f", named by {described.name}"
                if described
                else ", for want of class descriptions as they stand"
            ),
            "1 present, 0 absent, all else unknown" if "Confidence" in self._header else "all else unknown",
        ]

    def rows(self) -> Iterator[Row]:
        header = self._header
        id_at, name_at = header.index("ImageID"), header.index("LabelName")
        sure_at = header.index("Confidence") if "Confidence" in header else None
        id, first, found = "", 0, dict[str, bool]()
        for line, cells in itertools.islice(read_lines(self.path, "utf-8-sig", ","), 1, None):
            if len(cells) != len(header):
                raise ValueError(
                    f"{self.path}, line {line}: {len(cells)} fields, but {len(header)} in the header."
                )
            if cells[id_at] != id and found:
                yield self._row(id, first, found)
                found = {}
            if not found:
                id, first = cells[id_at], line
            name = clean(self._names.get(cells[name_at], cells[name_at]))
            sure = "1" if sure_at is None else cells[sure_at].strip()
            if sure not in ("0", "1", "0.0", "1.0"):
                raise ValueError(
                    f"{self.path}, line {line}: `Confidence` must be 1 or 0. Received: {sure!r:.40}"
                )
            found[name] = found.get(name, False) or sure[0] == "1"
        if found:
            yield self._row(id, first, found)

    def _row(self, id: str, line: int, found: dict[str, bool]) -> Row:
        present = tuple(name for name, is_there in found.items() if is_there)
        return Row(self.path, f"line {line}", id, present, split=self.split, known=tuple(found))


def _read_descriptions(folder: Path) -> tuple[dict[str, str], Path | None]:
    """Open Images' file of class descriptions, lines such as `/m/01yrx,Cat` without a header: id -> name."""
    path = next(
        (p for p in sorted(folder.glob("*class-descriptions*.csv")) if not p.name.startswith(".")), None
    )
    if path is None:
        return {}, None
    names = {}
    for line, cells in read_lines(path, "utf-8-sig", ","):
        if len(cells) != 2:
            raise ValueError(
                f"{path}, line {line}: expected an id and a name. Received: {','.join(cells)[:60]}"
            )
        names[cells[0]] = cells[1]
    return names, path
