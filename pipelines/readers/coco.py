"""Read the original COCO download as labelled samples, and parse COCO-style JSON, also your own."""

import dataclasses
import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.files import naming
from pipelines.readers.classes import COCO_CATEGORIES, COCO_CLASSES
from pipelines.reading import without_twins
from pipelines.samples import RawSet, Sample, Skip
from pipelines.words import nearest

HOMEPAGE = "https://cocodataset.org"
LICENCE = (
    "Annotations: CC BY 4.0 (COCO Consortium). Pictures: their photographers' terms on Flickr,"
    f" see {HOMEPAGE}/#termsofuse"
)
YEARS = (2014, 2017)

Box = tuple[float, float, float, float]
FindSize = Callable[[str], tuple[int, int] | None]


def read_coco(source: Path | str, *, year: int = 2014, keep_unlabelled: bool = False) -> RawSet:
    """COCO as its authors distribute it: splits `train` (train2014) and `test` (val2014, which has labels).

    Classes are in the order of COCO's category ids. Crowd objects count as labels and keep their box.

    Args:
        source: the folder of `train2014/`, `val2014/` and `annotations/instances_{train,val}2014.json`.
        year: 2014 or 2017; both have the same pictures, divided differently.
        keep_unlabelled: also yield pictures in which no object was labelled (0.9 % of COCO 2014). By default
            they are left out, as in the paper, and counted in `skipped`.

    Raises:
        ValueError, FileNotFoundError: `source` is not COCO of that year; says what is missing.
    """
    if year not in YEARS:
        raise ValueError(f"`year` of COCO must be one of {YEARS}. Received: {year}")
    source = Path(source)
    parts = {"train": f"train{year}", "test": f"val{year}"}
    needed = [f"annotations/instances_{part}.json" for part in parts.values()] + list(parts.values())
    for path in (source, *(source / name for name in needed)):
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing. COCO {year} is {', '.join(needed)} in one folder ({HOMEPAGE}/#download); a part"
                " of it can be read with `--dataset table`."
            )
    skipped: dict[str, list[Skip]] = {split: [] for split in parts}
    splits: dict[str, Callable[[], Iterator[Sample]]] = {
        split: functools.partial(
            _samples,
            source / "annotations" / f"instances_{part}.json",
            source / part,
            keep_unlabelled=keep_unlabelled,
            skipped=skipped[split],
        )
        for split, part in parts.items()
    }
    return RawSet(
        name="coco" if year == 2014 else f"coco{year}",
        classes=COCO_CLASSES,
        splits=splits,
        source=f"COCO {year}, {HOMEPAGE}: the original annotations/instances_*.json and pictures; train ="
        f" {parts['train']}, test = {parts['test']}; pictures without labels"
        f" {'kept' if keep_unlabelled else 'left out'}",
        licence=LICENCE,
        skipped=skipped,
    )


def _samples(
    annotations: Path, images: Path, *, keep_unlabelled: bool, skipped: list[Skip]
) -> Iterator[Sample]:
    instances = read_instances(annotations)
    for category, name in instances.categories.items():
        if COCO_CATEGORIES.get(category) != name:
            raise ValueError(
                f"{annotations}: category {category}, `{name}`, is not one of COCO's."
                f"{nearest(name, COCO_CLASSES)} A JSON of your own is read with `--dataset table`."
            )
    _refuse_incomplete(annotations, images, instances)
    index = {category: place for place, category in enumerate(COCO_CATEGORIES)}
    skipped.clear()
    for image in instances.images:
        objects = instances.objects.get(image.id, [])
        if objects or keep_unlabelled:
            present, boxes, box_labels = labels_of(objects, index)
            yield Sample(
                id=str(image.id),
                image=images / image.file_name,
                present=present,
                boxes=boxes,
                box_labels=box_labels,
                measured=image.measured,
            )
        else:
            skipped.append(Skip(id=str(image.id), why="no labelled object"))


def _refuse_incomplete(annotations: Path, images: Path, instances: "Instances") -> None:
    """Find a half-unpacked archive at once by listing the folder, not after hours of building."""
    with os.scandir(images) as entries:
        there = {entry.name for entry in entries}
    missing = [image.file_name for image in instances.images if image.file_name not in there]
    if missing:
        raise FileNotFoundError(
            f"{images / missing[0]} is missing, and {len(missing) - 1} more of the {len(instances.images)}"
            f" pictures that {annotations.name} lists: download or unpack the pictures again."
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """One entry of a COCO JSON's `images`. `width` and `height` in px, 0 where the JSON has none."""

    id: int | str
    file_name: str
    width: float = 0
    height: float = 0

    @property
    def measured(self) -> tuple[int, int] | None:
        """Height and width of the picture that its boxes were measured on, where the JSON tells."""
        return (round(self.height), round(self.width)) if self.width and self.height else None


@dataclasses.dataclass(frozen=True)
class Instances:
    """What a COCO-style JSON says, checked.

    Attributes:
        categories: category id -> name, by ascending id.
        images: in the order of the file.
        objects: image id -> (category id, box or None) of each of its objects. A box is (ymin, xmin, ymax,
            xmax) in fractions of the picture; an object without an area has None.
        remarks: what was guessed, in words for a person.
    """

    categories: dict[int, str]
    images: list[Image]
    objects: dict[int | str, list[tuple[int, Box | None]]]
    remarks: list[str] = dataclasses.field(default_factory=list)


def read_instances(path: Path, find_size: FindSize | None = None, content: Any = None) -> Instances:
    """Read a COCO-style JSON: lists `categories`, `images` and `annotations`.

    Args:
        path: the JSON.
        find_size: a picture's file name -> its width and height, where the JSON has none and there are boxes.
        content: what `load_json` gave of it, where it was read already.

    Raises:
        ValueError: it is not such a JSON; names the file and the entry.
    """
    content = load_json(path) if content is None else content
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is not COCO: expected an object with `images`, `annotations`, `categories`."
        )
    categories: dict[int, str] = {}
    for where, entry in _entries(path, content, "categories"):
        category, name = _number(where, entry, "id"), _field(where, entry, "name", str)
        if category in categories or name in categories.values():
            raise ValueError(f"{where}: id {category} or name `{name}` is given to two categories.")
        categories[category] = name

    images: dict[int | str, Image] = {}
    for where, entry in _entries(path, content, "images"):
        image = Image(
            id=_field(where, entry, "id", (int, str)),
            file_name=_field(where, entry, "file_name", str),
            width=_size(entry, "width"),
            height=_size(entry, "height"),
        )
        if image.id in images:
            raise ValueError(f"{where}: image id {image.id} is there twice.")
        images[image.id] = image

    objects: dict[int | str, list[tuple[int, Box | None]]] = {}
    by_text = {str(id): image for id, image in images.items()}
    remarks = []
    for where, entry in _entries(path, content, "annotations"):
        category = _number(where, entry, "category_id")
        id = _field(where, entry, "image_id", (int, str))
        owner = images.get(id)
        if owner is None and str(id) in by_text:  # 7 in one list, "7" in the other
            owner = by_text[str(id)]
            remarks = [f"{path.name}: ids of images are numbers in one list and texts in the other"]
        if category not in categories:
            raise ValueError(f"{where}: `category_id` {category} is not in `categories`.")
        if owner is None:
            raise ValueError(f"{where}: `image_id` {id!r:.60} is not in `images`.")
        if find_size is not None and entry.get("bbox") and not owner.measured:
            width, height = find_size(owner.file_name) or (0, 0)
            owner = dataclasses.replace(owner, width=width, height=height)
            images[owner.id] = by_text[str(owner.id)] = owner
        objects.setdefault(owner.id, []).append((category, _box(where, entry.get("bbox"), owner)))
    heading = _find_heading(content["categories"], categories, objects)
    if heading is not None:
        remarks.append(
            f"{path.name}: the category `{categories.pop(heading)}` is no class: it is the supercategory of all"
            " others, and no object has it"
        )
    return Instances(dict(sorted(categories.items())), list(images.values()), objects, remarks)


def _find_heading(
    entries: list[dict[str, Any]],
    categories: Mapping[int, str],
    objects: Mapping[int | str, list[tuple[int, Box | None]]],
) -> int | None:
    """The category that only stands above all others, as Roboflow writes one; None if there is none."""
    if len(categories) < 2:
        return None
    used = {category for of_image in objects.values() for category, _ in of_image}
    for category, name in categories.items():
        others = [entry for entry in entries if entry["name"] != name]
        if category not in used and all(entry.get("supercategory") == name for entry in others):
            return category
    return None


def labels_of(
    objects: Iterable[tuple[int, Box | None]], index: Mapping[int, int]
) -> tuple[tuple[int, ...], tuple[Box, ...], tuple[int, ...]]:
    """The present classes, the boxes and the boxes' classes of one picture; `index`: category id -> class."""
    labels = [(index[category], box) for category, box in objects]
    boxed = [(label, box) for label, box in labels if box is not None]
    present = tuple(sorted({label for label, _ in labels}))
    return present, tuple(box for _, box in boxed), tuple(label for label, _ in boxed)


def load_json(path: Path) -> Any:
    """The content of a JSON file, which may be large, without the outlines of objects.

    Raises:
        ValueError: it is not JSON, or gives a name two values.
    """
    try:
        with open(path, encoding="utf-8-sig") as file, naming(path):
            content = json.load(file, object_pairs_hook=_without_segmentation)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError; nested too deeply
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    return content


def _without_segmentation(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Drop the outlines, nine tenths of COCO's JSON, as each is read: they would fill gigabytes of memory."""
    entry = without_twins(pairs)
    entry.pop("segmentation", None)
    return entry


def _entries(path: Path, content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content.get(key), list):
        has = ", ".join(list(content)[:8]) or "nothing"
        raise ValueError(
            f"{path} is not COCO: it has no list `{key}`; its keys: {has}.{nearest(key, content)}"
        )
    for number, entry in enumerate(content[key]):
        where = f"{path}, {key}[{number}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object. Received: {str(entry)[:60]}")
        yield where, entry


def _field(where: str, entry: dict[str, Any], key: str, kind: Any) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        what = "a text" if kind is str else "a whole number" if kind is int else "a whole number or a text"
        found = f"Received: {value!r:.60}" if key in entry else f"It has {', '.join(entry) or 'nothing'}."
        raise ValueError(f"{where}: `{key}` must be {what}. {found}")
    return value


def _number(where: str, entry: dict[str, Any], key: str) -> int:
    """A whole number, which may be written as a text."""
    value = entry.get(key)
    return (
        int(value)
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value)
        else _field(where, entry, key, int)
    )


def _size(entry: dict[str, Any], key: str) -> float:
    value = entry.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0


def _box(where: str, bbox: Any, image: Image) -> Box | None:
    """COCO's [x, y, width, height] in px -> (ymin, xmin, ymax, xmax) in fractions, cut to the picture."""
    if bbox is None or bbox == []:
        return None
    numbers = bbox if isinstance(bbox, list) else []
    if len(numbers) != 4 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise ValueError(f"{where}: `bbox` must be four numbers, x y width height. Received: {bbox!r:.60}")
    if not (image.width and image.height):
        raise ValueError(f"{where}: image {image.id} has a `bbox` but no `width` and `height`, in px.")
    x, y, width, height = numbers
    ymin, xmin = max(0.0, y / image.height), max(0.0, x / image.width)
    ymax, xmax = min(1.0, (y + height) / image.height), min(1.0, (x + width) / image.width)
    return (ymin, xmin, ymax, xmax) if ymin < ymax and xmin < xmax else None
