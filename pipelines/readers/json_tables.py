"""Read the rows of JSON: COCO's lists, Label Studio's export, or an object per line."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image as Pictures

from pipelines.files import naming
from pipelines.pictures import known_formats
from pipelines.readers.coco import labels_of, load_json, read_instances
from pipelines.readers.placing import local_name
from pipelines.readers.rows import Row, Table, Told, clean
from pipelines.readers.values import (
    FILE_NAMES,
    LABEL_NAMES,
    as_list,
    check_columns,
    find_key,
    holds_numbers,
    labels_of_value,
    text_of,
)
from pipelines.reading import without_twins
from pipelines.words import listed

OBJECT = '{"file_name": "a.jpg", "labels": ["cat", "dog"]}'
LINE_BYTES = 2**24  # at most so many for one object
COCO_LISTS = {"images", "annotations", "categories"}
SAMPLED = 100  # lines, from which the keys are found
# What Label Studio's tags that ask for no label write; a plain Rectangle writes its `width`.
NO_LABELS = {"text", "rating", "number", "datetime", "width"}


def open_json(path: Path, split: str | None, told: Told, folder: Path | None = None) -> Table:
    """The table of a JSON file."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return JsonLines(path, split, told, folder)
    content = load_json(path)
    if isinstance(content, list):
        return LabelStudio(path, split, told, folder, content)
    if isinstance(content, dict) and not COCO_LISTS & content.keys():
        raise ValueError(
            f"{path} is in none of the forms of JSON that we know: COCO's lists (images, annotations, categories),"
            f" Label Studio's tasks, or a list of objects such as {OBJECT}. It has the keys {listed(content, 6)}."
        )
    return Coco(path, split, told, folder, content)


class Coco(Table):
    """A COCO-style JSON, held in memory."""

    def __init__(
        self, path: Path, split: str | None, told: Told, folder: Path | None, content: dict[str, Any]
    ) -> None:
        if folder is None and path.parent.name.lower() == "annotations":
            folder = path.parent.parent  # in COCO's layout, pictures lie in folders beside this one
        super().__init__(path, split, told, folder)
        self._content: dict[str, Any] | None = content
        self._lacks_sizes = False
        self._instances = read_instances(path, self._put_off, content)
        self.uses |= {"extension"}
        self.remarks = self._instances.remarks
        self.declared = tuple(self._instances.categories.values())
        self.exact = all((self.folder / image.file_name).is_file() for image in self._instances.images[:1])
        self.read_as = ["COCO's lists: file = file_name", "labels = category_id of the annotations"]

    def rows(self) -> Iterator[Row]:
        instances = self._instances
        index = {category: place for place, category in enumerate(instances.categories)}
        names = list(instances.categories.values())
        for image in instances.images:
            present, boxes, box_labels = labels_of(instances.objects.get(image.id, []), index)
            yield Row(
                table=self.path,
                place=f"image {image.id}",
                file=image.file_name,
                present=tuple(names[label] for label in present),
                split=self.split,
                boxes=boxes,
                box_labels=tuple(names[label] for label in box_labels),
                measured=image.measured,
            )

    def measure(self, find_file: Callable[[str], Path]) -> None:
        if self._lacks_sizes:
            self._instances = read_instances(self.path, lambda name: _size_of(find_file(name)), self._content)
        self._content = None

    def _put_off(self, file_name: str) -> tuple[int, int]:
        """Any width and height; `measure` finds the right ones once it is known where the pictures lie."""
        self._lacks_sizes = True
        return 1, 1


def _size_of(file: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None if it can't be opened."""
    try:
        with Pictures.open(file, formats=known_formats()) as picture:
            return picture.size
    except (OSError, ValueError, Pictures.DecompressionBombError):
        return None


class JsonLines(Table):
    """An object per line, `{"file_name": "a.png", "labels": ["cat", "dog"]}`, read anew at every iteration."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        self._told = told
        sample = [content for _, content in itertools.islice(self._lines(), SAMPLED)]
        keys = list(dict.fromkeys(key for content in sample for key in content))
        self._file = told.file_column or find_key(path, keys, FILE_NAMES, "file-column")
        self._labels = told.labels_column or find_key(path, keys, LABEL_NAMES, "labels-column")
        check_columns(path, keys, told)
        self.names_splits = "split" in keys
        self.joins_labels = any(isinstance(content.get(self._labels), str) for content in sample)
        self.separator = told.separator or ";"
        self.uses |= {"file_column", "labels_column", "group_column", "extension"}
        self.uses |= {"separator"} if self.joins_labels else set()
        self.ignored = tuple(
            k for k in keys if k not in (self._file, self._labels, "split", told.group_column)
        )
        self.read_as = [f"an object a line: file = {self._file}", f"labels = {self._labels}"]
        if any(holds_numbers(content.get(self._labels)) for content in sample):
            self.read_as.append("numbers are places in --classes, from 0")

    def rows(self) -> Iterator[Row]:
        group = self._told.group_column
        for line, content in self._lines():
            where = f"{self.path}, line {line}"
            file = content.get(self._file)
            if not isinstance(file, str):
                raise ValueError(f"{where}: `{self._file}` must name a file. Received: {file!r:.60}")
            split = text_of(content.get("split")) if self.names_splits else self.split
            present = labels_of_value(
                f"{where}: `{self._labels}`", content.get(self._labels), self.separator, self._told.classes
            )
            yield Row(
                *(self.path, f"line {line}", file, present),
                split=split,
                group=None if group is None else text_of(content.get(group)),
            )

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as file, naming(self.path):
            for line in itertools.count(1):
                text = file.readline(LINE_BYTES)
                if not text:
                    return
                if not text.strip():
                    continue
                try:
                    content = json.loads(text, object_pairs_hook=without_twins)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{self.path}, line {line}: no JSON: {error}") from None
                if not isinstance(content, dict):
                    raise ValueError(
                        f"{self.path}, line {line}: expected an object. Received: {str(content)[:60]!r}"
                    )
                yield line, content


class LabelStudio(Table):
    """Label Studio's JSON export, full or `min`, held in memory: the choices of each task."""

    def __init__(
        self, path: Path, split: str | None, told: Told, folder: Path | None, content: list[Any]
    ) -> None:
        super().__init__(path, split, told, folder)
        self._content = content
        self._told = told
        first = content[0] if content else {}
        if not isinstance(first, dict):
            raise ValueError(
                f"{path}: expected a list of objects, such as {OBJECT}. Received: {str(first)[:60]!r}"
            )
        data = first.get("data", first)
        self.uses |= {"file_column", "extension"} | (set() if "data" in first else {"labels_column"})
        check_columns(path, list(data), told, self.uses)
        self._key = told.file_column or find_key(path, list(data), FILE_NAMES, "file-column")
        self._choices = told.labels_column or ("" if "data" in first else _find_choices(path, first))
        kind = "a list of objects" if self._choices in LABEL_NAMES else "Label Studio's tasks"
        self.read_as = [f"{kind}: file = {self._key}", f"labels = {self._choices or 'choices'}"]

    def rows(self) -> Iterator[Row]:
        for number, task in enumerate(self._content):
            where = f"{self.path}, task {number}"
            if not isinstance(task, dict) or not isinstance(task.get("data", task), dict):
                raise ValueError(f"{where}: expected a task. Received: {str(task)[:60]!r}")
            file = task.get("data", task).get(self._key)
            if not isinstance(file, str):
                raise ValueError(f"{where}: `{self._key}` must name a picture. Received: {file!r:.60}")
            answers = self._answers(where, task)
            if not answers:
                self.remark("tasks that nobody has answered are left out")
                yield Row(self.path, f"task {number}", local_name(file), (), split=self.split, known=())
                continue
            agreed = set(answers[0]).intersection(*answers)
            doubted = set().union(*answers) - agreed
            if doubted:
                self.remark("labels about which the annotators of a picture disagree are unknown")
            present = tuple(name for name in answers[0] if name in agreed)
            yield Row(
                *(self.path, f"task {number}", local_name(file), present),
                split=self.split,
                unknown=tuple(sorted(doubted)),
            )

    def _answers(self, where: str, task: dict[str, Any]) -> list[tuple[str, ...]]:
        """The labels that each annotator gave."""
        if "data" not in task:
            value = task.get(self._choices)
            return [] if value is None else [_names_in(where, value)]
        answers = []
        for answer in as_list(task.get("annotations", task.get("completions"))):
            if not isinstance(answer, dict) or answer.get("was_cancelled"):
                continue
            names: list[str] = []
            for result in as_list(answer.get("result")):
                if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
                    raise ValueError(f"{where}: a `result` without a `value`.")
                names += _names_in(where, result["value"])
            answers.append(tuple(dict.fromkeys(names)))
        return answers


def _find_choices(path: Path, task: dict[str, Any]) -> str:
    by_form = [
        key
        for key, value in task.items()
        if any(isinstance(result, dict) and _label_keys(result) for result in as_list(value))
    ]
    return (
        by_form[0]
        if len(by_form) == 1
        else find_key(path, list(task), ("choice", *LABEL_NAMES), "labels-column")
    )


def _names_in(where: str, value: Any) -> tuple[str, ...]:
    """The labels in a value of Label Studio's: a name, what one tag or shape says, or a list of these."""
    names: list[str] = []
    for entry in as_list(value):
        if isinstance(entry, str):
            names.append(clean(entry))
            continue
        keys = _label_keys(entry) if isinstance(entry, dict) else []
        if not keys and not (isinstance(entry, dict) and NO_LABELS & entry.keys()):
            has = ", ".join(entry) if isinstance(entry, dict) else repr(entry)
            raise ValueError(
                f"{where}: expected choices or labels in each result, as Choices, Labels or RectangleLabels write"
                f" them. Received: {has:.80}"
            )
        for key in keys:
            labels = as_list(entry[key])
            if not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{where}: labels must be texts. Received: {labels!r:.60}")
            names += map(clean, labels)
    return tuple(dict.fromkeys(name for name in names if name))


def _label_keys(result: dict[str, Any]) -> list[str]:
    """The keys of a result's value that hold labels: `choices`, `labels`, `rectanglelabels`, `ellipselabels`, ..."""
    return [key for key in result if key == "choices" or key.endswith("labels")]
