"""Read the rows of Parquet files, as the Hugging Face hub has them, a few at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.readers.rows import Row, Table, Told, clean
from pipelines.readers.values import (
    FILE_NAMES,
    LABEL_NAMES,
    check_columns,
    find_key,
    labels_of_value,
    text_of,
)

ROWS_AT_A_TIME = 256


class Parquet(Table):
    """A Parquet file: a column of pictures (bytes, or paths) and one of labels (names, or numbers of classes)."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        file = self._open()
        columns = list(file.schema_arrow.names)
        check_columns(path, columns, told)
        self._image = told.file_column or find_key(path, columns, FILE_NAMES, "file-column")
        self._labels = told.labels_column or find_key(path, columns, LABEL_NAMES, "labels-column")
        self._group = told.group_column
        kind = str(file.schema_arrow.field(self._image).type)
        self._is_struct = kind.startswith("struct")
        self.holds_pictures = self._is_struct or kind in ("binary", "large_binary")
        names = _hub_names(file.schema_arrow.metadata, self._labels)
        self._names = names or told.classes  # the file's numbers count its own names
        self.declared = names
        self.ignored = tuple(c for c in columns if c not in (self._image, self._labels, self._group))
        self.joins_labels = str(file.schema_arrow.field(self._labels).type) in ("string", "large_string")
        self.uses |= {"file_column", "labels_column", "group_column"}
        self.uses |= {"separator"} if self.joins_labels else set()
        self.uses |= set() if self.holds_pictures else {"extension"}
        self.separator = told.separator or ";"
        self.exact = self.holds_pictures
        self._stem = path.stem
        self.read_as = [
            f"Parquet: {'pictures' if self.holds_pictures else 'file'} = {self._image}",
            f"labels = {self._labels}",
        ]

    def rows(self) -> Iterator[Row]:
        return self._rows(with_pictures=not self.holds_pictures)

    def rows_with_pictures(self) -> Iterator[Row]:
        return self._rows(with_pictures=True)

    def _open(self) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.path} is not a Parquet file: {' '.join(str(error).split())[:200]}"
            ) from None

    def _rows(self, with_pictures: bool) -> Iterator[Row]:
        columns = [self._labels, *([self._group] if self._group else [])]
        columns += [self._image] if with_pictures else []
        number = 0
        with self._open() as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns):
                for values in batch.to_pylist():
                    yield self._row(number, values)
                    number += 1

    def _row(self, number: int, values: dict[str, Any]) -> Row:
        place = f"row {number}"
        where = f"{self.path}, {place}: `{self._labels}`"
        present = labels_of_value(where, values[self._labels], self.separator, self._names)
        file, image = f"{self._stem}/{number:08d}", None
        value = values.get(self._image)
        if self.holds_pictures:
            image = value.get("bytes") if self._is_struct and isinstance(value, dict) else value
        elif isinstance(value, str):
            file = value
        return Row(
            *(self.path, place, file, present),
            split=self.split,
            group=text_of(values[self._group]) if self._group else None,
            image=image,
        )


def _hub_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The class names that the hub's libraries write into a file's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature["names"]
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError):
        return None
    return tuple(clean(str(name)) for name in names) if isinstance(names, list) and names else None
