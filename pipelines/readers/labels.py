"""Find out what separates the labels in a table, and refuse labels that don't look like class names."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

# Marks that people put between labels. Some also stand inside names, so one label with such a mark proves nothing.
SEPARATORS = ("|", "\t", ";", ",", "/", "+", "&", " ")
BLANKS = ("nan", "<na>", "null")  # what pandas and others write for a cell that says nothing
NEVER_IN_NAMES = ("|", "\t")
FEW_CELLS = 50  # in fewer cells, it can't be known what a blank means


def check_labels(
    first: Mapping[str, str], classes: Collection[str], separator: str | None, *, told: bool = True
) -> None:
    """Refuse labels that are probably mistakes, where nobody has said which classes there are.

    Args:
        first: each label that was met -> where it was met first, for the error.
        classes: all classes; some may not have been met.
        separator: what labels were separated by, or None where they did not stand in one cell.
        told: whether the user told the separator; otherwise no label may hold a comma.

    Raises:
        ValueError: labels that look joined by another separator, or like a blank cell; classes that differ by case or
            space only.
    """
    blank = next((label for label in first if label.casefold() in BLANKS), None)
    if blank is not None:
        raise ValueError(
            f"{first[blank]}: `{blank}` is how programs write a cell that says nothing. Leave the cell of a picture"
            f" with none of the classes blank, or --none-label {blank} says so; if it is a name, list all names in a"
            " file for --classes."
        )
    for mark in SEPARATORS if separator is not None else ():
        joined = None if mark == separator else _joined_by(mark, first)
        if mark == "," != separator and not told:
            joined = joined or next((label for label in first if "," in label), None)
        if joined:
            raise ValueError(
                f"{first[joined]}: `{joined:.80}` looks like several labels with {_name(mark)} in between, where"
                f" {_name(str(separator))} was expected. --separator {mark!r} reads it so; if it is one name, list"
                " all names in a file for --classes."
            )
    seen: dict[str, str] = {}
    for name in dict.fromkeys([*first, *classes]):  # as they were met
        other = seen.setdefault(_folded(name), name)
        if other != name:
            where = f"{first[name]}: " if name in first else ""
            raise ValueError(
                f"{where}the classes `{name:.80}` and `{other:.80}` differ by case or space only. Write them alike;"
                " or, if both are meant, list all names in a file for --classes."
            )


def find_separator(path: Path, cells: Sequence[str], classes: Collection[str] | None) -> str:
    """What stands between the labels in these cells, `;` where nothing does.

    Args:
        path: of the table, for the error.
        cells: some hundreds of the cells of the column of labels.
        classes: all class names, if the user told them.

    Raises:
        ValueError: two marks may be meant, or one is seen too seldom to be sure.
    """
    filled = [cell for cell in cells if cell and cell[0] not in "{["]
    known = set(classes or ())
    marks = [mark for mark in ("|", ";", "\t") if any(mark in cell for cell in filled if cell not in known)]
    if len(marks) > 1:
        example = next(cell for cell in filled if marks[0] in cell)
        raise ValueError(
            f"{path}: labels are separated by {_name(marks[0])} in some rows, as in `{example:.60}`, and by"
            f" {_name(marks[1])} in others. --separator says which is meant; write all rows alike."
        )
    if marks:
        return marks[0]
    for mark in (",", "/", "+", "&", " "):
        joined = [cell for cell in filled if mark in cell.strip(mark) and cell not in known]
        if not joined:
            continue
        distinct = set(filled)
        parts = [[part.strip() for part in cell.split(mark)] for cell in distinct]
        if known:
            if all({*found} <= known for found in parts):
                return mark
            continue
        # Where labels are joined, few different labels make many different cells, and their number per cell varies.
        few = len({part for found in parts for part in found}) < len(distinct)
        varied = len({len(found) for found in parts}) > 1
        if few and varied and 5 * len(joined) >= len(filled) and mark in ", ":
            return mark
        are_cells = any(part in distinct for found in parts if len(found) > 1 for part in found)
        if mark == "," or few or are_cells or (mark == " " and len(filled) < FEW_CELLS):
            raise ValueError(
                f"{path}: {_name(mark)} stands in {len(joined):,} of {len(filled):,} cells of labels, as in"
                f" `{joined[0]:.60}`: does it separate labels? --separator {mark!r} says so, --separator ';' says"
                " that these are names."
            )
    return ";"


def _joined_by(mark: str, labels: Collection[str]) -> str | None:
    """A label that looks like several labels joined by `mark`, or None.

    Names with a mark inside, such as `traffic light`, have parts that no other label has. Joined labels have parts
    that are labels themselves, or have fewer different parts than there are such labels.
    """
    parts = {label: [part.strip() for part in label.split(mark)] for label in labels if mark in label}
    parts = {label: found for label, found in parts.items() if len(found) > 1 and all(found)}
    if not parts:
        return None
    of_labels = [label for label, found in parts.items() if all(part in labels for part in found)]
    uses = Counter(part for found in parts.values() for part in set(found))
    enough = 2 if mark == " " else 1
    if mark in NEVER_IN_NAMES:
        return next(iter(parts))
    if len(of_labels) >= enough and 2 * len(of_labels) >= len(parts):
        return of_labels[0]
    return next(iter(parts)) if len(uses) < len(parts) else None


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _name(mark: str) -> str:
    return {" ": "a space", "\t": "a tab"}.get(mark, f"`{mark}`")
