"""What tables of every form are read as: rows of one picture each, with names as the table writes them."""

import dataclasses
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Box = tuple[float, float, float, float]
MinusOne = Literal["difficult", "absent", "unknown"]  # what -1 says in a column per class
SameName = Literal["one", "several"]  # whether files of one name in several class folders are one picture

SEPARATOR = ";"  # between the labels of one cell, unless the user says or the table shows otherwise
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# fmt: off
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".jfif", ".jpe",
                   ".avif", ".heic", ".heif")
# fmt: on


@dataclasses.dataclass(frozen=True)
class Told:
    """What a user told about a table by options; None where it is to be guessed.

    Attributes:
        classes: all class names, in order.
        separator: what stands between the labels of a cell.
        minus_one: what -1 says in a column per class.
        file_column, labels_column, group_column: names of columns.
        extension: what to append to the names of files, `.jpg`.
        none_label: the label that says that none of the classes is there.
        same_name: in class folders, whether files of one name are one picture.
    """

    classes: tuple[str, ...] | None = None
    separator: str | None = None
    minus_one: MinusOne | None = None
    file_column: str | None = None
    labels_column: str | None = None
    extension: str | None = None
    none_label: str | None = None
    group_column: str | None = None
    same_name: SameName | None = None


class Row(NamedTuple):  # which is made in less than half of the time of a dataclass
    """One picture as its table has it: class names, not yet indices. `place` is for people: `line 3`.

    Attributes:
        unknown: classes of which nobody knows whether they are in the picture.
        known: if not None, all classes but these and the present ones are unknown.
        group: name of a group of pictures that must all come into one split.
        image: the encoded picture, where it lies in the table itself.
    """

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
    known: tuple[str, ...] | None = None
    group: str | None = None
    image: bytes | None = None

    @property
    def where(self) -> str:
        return f"{self.table}, {self.place}"


class Table:
    """A file of rows, or a folder that serves as one.

    Attributes:
        path: the file.
        folder: the folder to which the rows' files are relative.
        split: the split of all its rows, where the file's name tells it.
        uses: the fields of `Told` that make a difference to it.
        declared: the classes that it names outside of its rows, or None.
        ignored: columns that are not read.
        names_splits: whether each row names its split.
        joins_labels: whether all labels of a row stand in one cell.
        exact: whether its rows name files exactly as they lie in `folder`; otherwise their place may be guessed.
        separator: what a cell's labels are separated by.
        none_label: the label that says that none of the classes is there, or None.
        met_none_label: whether a row had it; complete once the rows have been iterated.
        holds_pictures: whether the pictures lie in the table itself.
        is_long: whether a picture may have several lines.
        read_as: how it is read, in words for a person; the file first: `file = image`.
        remarks: what else was guessed; complete once the rows have been iterated.
    """

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        self.path = path
        self.folder = folder or path.parent
        self.split = split
        self.uses = {"classes", "none_label"}
        self.declared: tuple[str, ...] | None = None
        self.ignored: tuple[str, ...] = ()
        self.names_splits = False
        self.joins_labels = False
        self.exact = False
        self.separator = ";"
        self.none_label = told.none_label
        self.met_none_label = False
        self.holds_pictures = False
        self.is_long = False
        self.read_as: list[str] = []
        self.remarks: list[str] = []

    def rows(self) -> Iterator[Row]:
        raise NotImplementedError

    def rows_with_pictures(self) -> Iterator[Row]:
        """Like `rows`, with the pictures that lie in the table itself."""
        return self.rows()

    def measure(self, find_file: Callable[[str], Path]) -> None:
        """Take the sizes that the table lacks from the pictures themselves; `find_file`: a row's file -> its path."""

    def remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def clean(text: str) -> str:
    """A name in the form used to compare it: no space around it, accents composed (`é` is one character, not two)."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text.strip())


def split_named(name: str) -> str | None:
    """The split that a file's or folder's name stands for, or None."""
    return SPLIT_NAMES.get(name.lower())
