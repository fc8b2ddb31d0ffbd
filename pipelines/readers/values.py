"""Read what all tables have in common: which column is which, by its name; and a value that holds labels."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipelines.readers.rows import Told, clean
from pipelines.words import listed, nearest, spell

MOST_JSON = 2**20  # characters of JSON in a cell
# What others call the column of files and the column of labels; in lower case, without marks between words.
# fmt: off
FILE_NAMES: tuple[str, ...] = (
    "file", "filename", "fname", "image", "imagename", "img", "imageindex", "imageid", "imagepath", "path",
    "filepath", "imagefile", "imgname", "imgpath", "picture", "photo", "id", "name",
)
LABEL_NAMES: tuple[str, ...] = (
    "labels", "label", "tags", "tag", "findinglabels", "classes", "class", "categories", "category", "choice",
    "choices",
    "attributes", "attributeids", "targets", "target", "labelnames", "genres",
)
# fmt: on


def plain(column: str) -> str:
    """A column's name as it is compared with the usual ones: `Image_ID` -> `imageid`."""
    return re.sub("[^a-z0-9]", "", column.lower())


def check_columns(
    path: Path,
    columns: Sequence[str],
    told: Told,
    options: Collection[str] = ("file_column", "labels_column", "group_column"),
) -> None:
    """Refuse options that name columns which a table does not have."""
    for option in ("file_column", "labels_column", "group_column"):
        column = getattr(told, option)
        if option in options and column is not None and column not in columns:
            raise ValueError(
                f"{path} has no column `{column}`, which --{spell(option)} names. It has {listed(columns)}."
                f"{nearest(column, columns)}"
            )


def find_key(path: Path, keys: list[str], known: tuple[str, ...], option: str) -> str:
    """The column of files or of labels, by its name; `known`: the usual names, `option` tells another one."""
    found = [key for key in keys if plain(key) in known]
    what = "the pictures" if option == "file-column" else "the labels"
    if len(found) > 1 and option == "labels-column":
        raise ValueError(
            f"{path} has {' and '.join(f'`{k}`' for k in found)}: --{option} says which names {what}."
        )
    if not found:
        raise ValueError(
            f"{path} names {what} by none of the usual keys: --{option} says by which. It has {listed(keys)}."
        )
    return min(found, key=lambda key: known.index(plain(key)))


def as_list(value: Any) -> list[Any]:
    """A value that may be one, a list of several, or None for none at all."""
    return value if isinstance(value, list) else [] if value is None else [value]


def text_of(value: Any) -> str:
    """A split or a group as text; "" where there is none, or a number that is none."""
    return "" if value is None or value != value else str(value).strip()


def holds_numbers(value: Any) -> bool:
    """Whether a value that holds labels gives them as numbers."""
    return any(isinstance(label, int) for label in as_list(value))


def labels_of_value(where: str, value: Any, separator: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """The labels in a value: a text of several, a list of texts, or numbers that are places in `names`.

    Args:
        where: the row and the column, for the errors.
        value: as JSON or Parquet has it.
        separator: between the labels of a text.
        names: the classes' names, in the order by which the file numbers them; None where nobody told them.

    Raises:
        ValueError: it says nothing, has numbers that are not places in `names`, or a number twice.
    """
    if value is None:
        raise ValueError(f"{where} says nothing. Of a picture with none of the classes it is an empty list.")
    if isinstance(value, str):
        return labels_of_text(where, value, separator)
    labels = as_list(value)
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"{where} must be a list of names or numbers. Received: {value!r:.60}")
        if not isinstance(label, int):
            continue
        if names is None:
            raise ValueError(
                f"{where}: the labels are numbers, and the file names no classes: --classes FILE has one name a line,"
                " the first is of 0."
            )
        if labels.count(label) > 1:
            raise ValueError(
                f"{where} looks like a 0 or 1 for each class, where the numbers of the present classes are expected."
                f" Received: {value!r:.60}"
            )
        if not 0 <= label < len(names):
            raise ValueError(f"{where}: label {label} is no place among {len(names)} classes.")
    found = (names[label] if names and isinstance(label, int) else clean(str(label)) for label in labels)
    return tuple(dict.fromkeys(name for name in found if name))


def labels_of_text(where: str, text: str, separator: str) -> tuple[str, ...]:
    """The labels in a text: several with a separator in between, or a list as JSON or Python writes it."""
    text = text.strip()
    if text[:1] in ("{", "["):
        return _labels_of_json(where, text)
    return tuple(name for part in text.split(separator) if (name := clean(part)))


def _labels_of_json(where: str, cell: str) -> tuple[str, ...]:
    """The labels of a cell with a list as Label Studio or pandas writes it: `{"choices": ["cat"]}`, `["cat"]`."""
    try:
        content: Any = json.loads(cell[:MOST_JSON])
    except (ValueError, RecursionError):
        if re.fullmatch(r"\[\s*('[^']*'\s*,?\s*)*\]", cell):  # as Python writes a list of texts
            return tuple(clean(name) for name in re.findall(r"'([^']*)'", cell) if clean(name))
        raise ValueError(f"{where}: expected a list of labels. Received: {cell[:60]!r}") from None
    if isinstance(content, dict):
        content = content.get("choices")
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{where}: expected a list of labels. Received: {cell[:60]!r}")
    return tuple(name for text in content if (name := clean(text)))
