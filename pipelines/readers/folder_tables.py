"""Read the rows of a folder: one folder per class, or YOLO's text files beside the pictures."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.readers.rows import PICTURE_ENDINGS, Box, Row, Table, Told, clean, split_named
from pipelines.reading import read_text, read_yaml
from pipelines.words import listed

LABEL_BYTES = 2**22  # of one of YOLO's text files


class ClassFolders(Table):
    """One folder of pictures per class; a picture that was copied into several folders has all of their labels."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder or path)
        self.exact = True
        self.uses |= {"same_name"}
        self._same_name = told.same_name
        self.folders = _folders_in(path)
        self.declared = tuple(clean(entry.name) for entry in self.folders)
        self._found: list[tuple[str, list[str]]] | None = None
        loose = sum(_is_picture(name) for name in os.listdir(path))
        if loose:
            self.remark(
                f"pictures beside the folders of classes, which are not read: {loose:,} in {path.name}/"
            )

    def rows(self) -> Iterator[Row]:
        if self._found is None:
            self._found = self._merge()
        for file, labels in self._found:
            yield Row(self.path, file, file, tuple(labels), split=self.split)

    def _merge(self) -> list[tuple[str, list[str]]]:
        """(file, relative to the folder; its labels) per picture; copies are one picture, under their first name."""
        files = [(clean(folder.name), file) for folder in self.folders for file in _pictures_below(folder)]
        same_size: dict[int, list[int]] = defaultdict(list)
        same_name: dict[str, list[int]] = defaultdict(list)
        for number, (_, file) in enumerate(files):
            same_size[file.stat().st_size].append(number)
            same_name[file.name].append(number)
        merged = list(range(len(files)))  # a file -> an earlier one that is the same picture, or itself

        def first_of(number: int) -> int:
            while merged[number] != number:
                number = merged[number]
            return number

        def merge(one: int, other: int) -> None:
            low, high = sorted((first_of(one), first_of(other)))
            merged[high] = low

        by_bytes: dict[bytes, int] = {}
        for numbers in same_size.values():
            for number in numbers if len(numbers) > 1 else ():
                with files[number][1].open("rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").digest()
                merge(by_bytes.setdefault(digest, number), number)
        if self._same_name != "several":
            for numbers in same_name.values():
                others = [number for number in numbers if first_of(number) != first_of(numbers[0])]
                if others and self._same_name is None:
                    raise ValueError(
                        f"{files[numbers[0]][1]} and {files[others[0]][1]} have one name and other bytes: --same-name"
                        " one says that they are one picture, --same-name several that they are not."
                    )
                for number in others:
                    merge(numbers[0], number)
        labels: dict[int, list[str]] = {}
        for number, (label, _) in enumerate(files):
            found = labels.setdefault(first_of(number), [])
            if label not in found:
                found.append(label)
        if len(labels) < len(files):
            self.remark(f"copies of other files: {len(files) - len(labels):,}, read as one picture with them")
        return [(os.path.relpath(files[first][1], self.folder), names) for first, names in labels.items()]


def _folders_in(path: Path) -> list[Path]:
    with os.scandir(path) as entries:
        found = [Path(e.path) for e in entries if e.is_dir() and not e.name.startswith((".", "__"))]
    return sorted(found)


def _pictures_in(folder: Path) -> bool:
    """Whether a picture lies in a folder itself."""
    with os.scandir(folder) as entries:
        return any(_is_picture(entry.name) for entry in entries)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_ENDINGS) and not name.startswith(".")


def _pictures_below(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(files):
            if _is_picture(name):
                yield Path(folder, name)


def find_class_folders(source: Path, told: Told) -> list[Table] | None:
    """The tables of a folder of class folders, or of such a folder for each split; None if it is neither."""
    folders = _folders_in(source)
    if not folders or any(next(_pictures_below(folder), None) is None for folder in folders):
        return None
    if all(split_named(folder.name) for folder in folders):
        tables = [ClassFolders(folder, split_named(folder.name), told, source) for folder in folders]
    else:
        tables = [ClassFolders(source, None, told)]
    if any(not table.folders for table in tables):
        return None
    # A class may lack pictures in one split.
    declared = tuple(sorted({name for table in tables for name in table.declared or ()}))
    _refuse_other_folders(source, declared, [folder for table in tables for folder in table.folders], told)
    for table in tables:
        table.declared = declared
        table.read_as = [f"a folder a class: {listed(declared, 6)}"]
    return list(tables)


def _refuse_other_folders(source: Path, names: tuple[str, ...], folders: list[Path], told: Told) -> None:
    """Refuse folders of pictures that are probably no classes: one alone, splits, or folders of other folders."""
    classes = told.classes or ()
    named_so = [name for name in names if split_named(name) and name not in classes]
    if len(names) == 1:
        why = "that is only one"
    elif named_so:
        why = f"`{named_so[0]}` is the name of a split"
    elif not any(_pictures_in(folder) for folder in folders):
        why = "no picture lies in one of them, only in folders below"
    else:
        return
    raise ValueError(
        f"{source} holds no CSV and no JSON, and its folders are not read as classes ({listed(names, 6)}): {why}."
        " Expected a folder for each class, or train, val and test, each with a folder for each class; or name the"
        " table of labels as --source."
    )


# --- YOLO -----------------------------------------------------------------------------------------------------------


class Yolo(Table):
    """YOLO's `data.yaml` and a text file per picture; each line holds a class number and a box or an outline."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        content = read_yaml(path)
        if not isinstance(content, dict) or "names" not in content:
            raise ValueError(f"{path} is not YOLO's: it has no `names` of classes.")
        self._names = _yolo_names(path, content["names"])
        self.declared = tuple(dict.fromkeys(self._names.values()))
        base = Path(content["path"]) if isinstance(content.get("path"), str) else Path()
        self._parts: list[tuple[str, Path]] = []
        for key in ("train", "val", "valid", "test"):
            named = content.get(key)
            for place in named if isinstance(named, list) else [named]:
                if isinstance(place, str) and place:
                    self._parts.append((split_named(key) or key, self._resolve(key, base, place)))
        if not self._parts:
            raise ValueError(f"{path} names no folder of pictures: expected `train: images/train`.")
        self.names_splits = True
        self.exact = True
        self.read_as = [
            "YOLO's text files",
            "labels = first number of each line",
            "splits = folders of the YAML",
        ]

    def rows(self) -> Iterator[Row]:
        for split, place in self._parts:
            for picture in _pictures_of_list(place) if place.suffix == ".txt" else _pictures_below(place):
                names, boxes, box_labels = self._labels(_label_file(picture, self.folder))
                file = os.path.relpath(picture, self.folder)
                yield Row(
                    *(self.path, file, file, names),
                    split=split,
                    boxes=boxes,
                    box_labels=box_labels,
                )

    def _labels(self, file: Path) -> tuple[tuple[str, ...], tuple[Box, ...], tuple[str, ...]]:
        names, boxes, box_labels = dict[str, None](), [], []
        if not file.is_file():  # a picture with none of the classes
            return (), (), ()
        for line, text in enumerate(read_text(file, LABEL_BYTES).splitlines(), start=1):
            words = text.split()
            if not words:
                continue
            try:
                number, sides = int(words[0]), [float(word) for word in words[1:]]
            except ValueError:
                number, sides = -1, []
            if number not in self._names:
                raise ValueError(
                    f"{file}, line {line}: expected the number of one of {len(self._names)} classes. Received:"
                    f" {text[:40]!r}"
                )
            name = self._names[number]
            names[name] = None
            if len(sides) == 4:
                x, y, width, height = sides
                box = (
                    max(0.0, y - height / 2),
                    max(0.0, x - width / 2),
                    min(1.0, y + height / 2),
                    min(1.0, x + width / 2),
                )
                if box[0] < box[2] and box[1] < box[3]:
                    boxes.append(box)
                    box_labels.append(name)
        return tuple(names), tuple(boxes), tuple(box_labels)

    def _resolve(self, key: str, base: Path, place: str) -> Path:
        """A folder that the YAML names; Roboflow's begin with `../` although they lie beside the YAML itself."""
        here = self.path.parent
        bare = place
        while bare.startswith(("../", "./")):
            bare = bare.partition("/")[2]
        for found in (here / base / place, here / place, here / bare, here / base.name / place):
            if found.exists() and found.resolve().is_relative_to(self.folder.resolve()):
                return found
        raise FileNotFoundError(
            f"{self.path}: {place}, its `{key}`, is not in {here}. If there is no such split, remove the line."
        )


def _yolo_names(path: Path, names: Any) -> dict[int, str]:
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    found = {int(number): clean(str(name)) for number, name in pairs if str(number).isdigit()}
    if not found:
        raise ValueError(f"{path}: `names` must be a list of class names. Received: {names!r:.60}")
    return found


def _label_file(picture: Path, folder: Path) -> Path:
    """`images/train/a.jpg` -> `labels/train/a.txt`; beside the picture where no folder below `folder` is `images`."""
    parts = list(Path(os.path.relpath(picture, folder)).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return folder.joinpath(*parts).with_suffix(".txt")


def _pictures_of_list(file: Path) -> Iterator[Path]:
    for text in read_text(file).removeprefix("\ufeff").splitlines():
        if name := text.strip():
            yield file.parent / name
