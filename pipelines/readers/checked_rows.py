"""Go through the rows of tables of every form, with the checks that hold for all of them."""

import re
from collections.abc import Iterator, Sequence

from pipelines.readers.rows import Row, Table, split_named


def checked_rows(tables: Sequence[Table], *, with_pictures: bool = False) -> Iterator[tuple[Table, Row]]:
    """The rows of all tables, with their splits by our names, and none of the classes where a label says so.

    Raises:
        ValueError: a split that is no name; a label that says none of the classes beside others.
    """
    none_labels = {table.none_label for table in tables if table.none_label is not None}
    named: dict[str, str] = {}  # a split as a table names it -> our name
    for table in tables:
        for row in table.rows_with_pictures() if with_pictures else table.rows():
            if row.split is not None:
                if row.split not in named:
                    named[row.split] = _name_split(table, row, row.split)
                if named[row.split] != row.split:
                    row = row._replace(split=named[row.split])
            if none_labels and not none_labels.isdisjoint((*row.present, *row.unknown)):
                table.met_none_label = True
                row = _without_none(row, none_labels)
            yield table, row


def check_none_label(tables: Sequence[Table]) -> None:
    """Refuse a label that should say none of the classes and that no row has, once all rows have been read."""
    none_label = next((table.none_label for table in tables if table.none_label is not None), None)
    if none_label is not None and not any(table.met_none_label for table in tables):
        raise ValueError(f"No picture has the label `{none_label:.60}`, which --none-label names.")


def _name_split(table: Table, row: Row, named: str) -> str:
    split = split_named(named) or named
    if not re.fullmatch(r"[A-Za-z0-9_]+", split):
        raise ValueError(
            f"{row.where}: `split` must be a name of letters, digits and _. Received: {named!r:.40}"
        )
    if split != named:
        table.remark(f"the split {named} is read as {split}")
    return split


def _without_none(row: Row, none_labels: set[str]) -> Row:
    unknown = tuple(name for name in row.unknown if name not in none_labels)
    said = next((name for name in row.present if name in none_labels), None)
    if said is None:
        return row._replace(unknown=unknown)
    if not none_labels.issuperset(row.present):
        raise ValueError(
            f"{row.where}: `{said:.40}`, which says none of the classes, stands beside others:"
            f" {', '.join(row.present)[:80]}."
        )
    return row._replace(present=(), difficult=(), boxes=(), box_labels=(), unknown=unknown)
