"""Say for people how tables were understood, and what in them looks like a mistake."""

import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence

from pipelines.readers.checked_rows import checked_rows
from pipelines.readers.rows import PICTURE_ENDINGS, Row, Table
from pipelines.words import counted, nearest

MANY_ROWS = 1000  # among so many, a label that only one row has is likely to be misspelt
USUAL_SPLITS = ("train", "validation", "test")


def say(tables: Sequence[Table], places: str, classes: int, pictures: int) -> str:
    """How the labels are read, in one line; `places`: what is said behind the column of files."""
    file, *rest = tables[0].read_as
    return f"{', '.join([file + places, *rest])}; {counted(classes, 'class')}; {counted(pictures, 'picture')}"


def understood(tables: Sequence[Table]) -> str:
    """The end of an error message: how the first rows were read, if something had to be guessed."""
    if all(table.exact for table in tables):
        return ""
    shown = []
    try:
        for _, row in itertools.islice(checked_rows(tables), 3):
            shown.append(f"{row.file:.40}: {', '.join(row.present)[:60] or 'none'}")
    except (ValueError, OSError):
        pass
    how = ", ".join(tables[0].read_as)
    rows = f"; first rows: {' | '.join(shown)}" if shown else ""
    return (
        f" (Read as: {how}{rows}. Other readings: --file-column, --labels-column, --separator, --extension,"
        " --images.)"
    )


def swapped(row: Row) -> str:
    """The end of an error message on a missing picture: whether its labels are the names of pictures."""
    name = next((name for name in row.present if name.lower().endswith(PICTURE_ENDINGS)), None)
    return "" if name is None else f" Its label `{name:.60}` looks like a picture: are the columns swapped?"


def suspicious_labels(rows: int, first: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """Labels that may be misspelt, because only one row among very many has them.

    Args:
        rows: their number.
        first: each label that was met -> where it was met first.
        counts: label -> number of rows that have it.
    """
    if rows < MANY_ROWS:
        return []
    once = [name for name, number in counts.items() if number == 1]
    if not once:
        return []
    often = [name for name, number in counts.items() if number > 1]
    shown = [f"`{name:.60}` ({first[name].rpartition(', ')[2]}).{nearest(name, often)}" for name in once[:3]]
    more = f" And {len(once) - 3:,} more." if len(once) > 3 else ""
    return [
        f"suspicious: of {rows:,} rows only one has the label {' '.join(shown)}{more} If it is misspelt, mend it;"
        " --classes FILE makes such a label an error"
    ]


def suspicious_splits(splits: Collection[str]) -> list[str]:
    """Splits whose names are nearly those that commands use by themselves."""
    remarks = []
    for split in sorted(set(splits).difference(USUAL_SPLITS)):
        if near := difflib.get_close_matches(split.lower(), USUAL_SPLITS, n=1, cutoff=0.75):
            remarks.append(
                f"suspicious: the split `{split}` is read as one of its own. Did you mean `{near[0]}`?"
            )
    return remarks
