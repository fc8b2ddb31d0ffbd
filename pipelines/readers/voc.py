"""Read a Pascal VOC devkit as labelled samples: present, difficult and absent told apart, boxes kept."""

import functools
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pipelines.files import naming
from pipelines.readers.classes import VOC_CLASSES
from pipelines.samples import RawSet, Sample, Skip
from pipelines.words import nearest

HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/"
LICENCE = "Pictures: their photographers' terms on Flickr, https://www.flickr.com/help/terms; research use"
YEARS = (2007, 2012)
DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["'][^>]*\?>""")
GB18030 = {"gb2312": "gb18030", "gbk": "gb18030"}

# What a picture shows of a class, in the numbers of the devkit's per-class lists.
PRESENT, DIFFICULT, ABSENT = 1, 0, -1

Box = tuple[float, float, float, float]
Object = tuple[int, bool, Box | None]  # class, whether it is difficult, where it is

_log = logging.getLogger(__name__)


def read_voc(source: Path | str, *, year: int = 2007) -> RawSet:
    """A VOC devkit's main image sets.

    Splits, from the lists that `ImageSets/Main` holds:
        train: `trainval.txt`, which is the union of `train.txt` and `val.txt`: what the paper trains on.
        test: `test.txt`. VOC 2012's has no labels: every class of its pictures is `unknown`. It serves for
            predictions to submit; nothing can be measured on it.
        devkit_train, devkit_val: `train.txt` and `val.txt`, where there are both. They are the two halves of
            `train`: train on `devkit_train` to evaluate on `devkit_val`, never on `train`.

    Whether a class is in a picture is decided by the per-class lists (`cat_train.txt`: 1, 0 difficult, -1), which are
    the classification task's own ground truth, or if there are none, by the objects in `Annotations/*.xml`. If the
    two disagree, a warning says by how much.

    Args:
        source: `VOCdevkit/VOC2007` itself, `VOCdevkit`, or the folder that holds it.
        year: 2007 or 2012.

    Raises:
        ValueError, FileNotFoundError: `source` is not a devkit of that year; says what is missing.
    """
    if year not in YEARS:
        raise ValueError(f"`year` of VOC must be one of {YEARS}. Received: {year}")
    root = _find_root(Path(source), year)
    lists = _read_lists(root / "ImageSets" / "Main")
    skipped: dict[str, list[Skip]] = {split: [] for split in lists}
    return RawSet(
        name=f"voc{year}",
        classes=VOC_CLASSES,
        splits={
            split: functools.partial(_samples, root, parts, labelled=(year, split) != (2012, "test"))
            for split, parts in lists.items()
        },
        source=f"Pascal VOC {year}, {HOMEPAGE.format(year=year)}: the original VOCdevkit/VOC{year}; "
        + ", ".join(f"{split} = {' + '.join(parts)}" for split, parts in lists.items()),
        licence=LICENCE,
        skipped=skipped,
    )


def _find_root(source: Path, year: int) -> Path:
    for root in (source / "VOCdevkit" / f"VOC{year}", source / f"VOC{year}", source):
        if (root / "ImageSets" / "Main").is_dir():
            break
    else:
        raise FileNotFoundError(
            f"VOC {year} is not in {source}: expected VOCdevkit/VOC{year}/ImageSets/Main there, as its archives"
            f" unpack ({HOMEPAGE.format(year=year)})."
        )
    if root.resolve().name in {f"VOC{other}" for other in YEARS if other != year}:
        raise ValueError(f"{source} is of another year than {year}, which was asked for.")
    for folder in ("JPEGImages", "Annotations"):
        if not (root / folder).is_dir():
            raise FileNotFoundError(f"{root / folder} is missing: unpack all of VOC {year}'s archives.")
    return root


def _read_lists(main: Path) -> dict[str, dict[str, list[str]]]:
    """Split -> devkit list -> picture ids, for the splits that the devkit's lists allow."""
    found = {
        name: _read_ids(main / f"{name}.txt")
        for name in ("train", "val", "trainval", "test")
        if (main / f"{name}.txt").is_file()
    }
    halves = {name: ids for name, ids in found.items() if name in ("train", "val")}
    splits: dict[str, dict[str, list[str]]] = {}
    if "trainval" in found:
        splits["train"] = {"trainval": found["trainval"]}
    elif halves:
        splits["train"] = halves
    if "test" in found:
        splits["test"] = {"test": found["test"]}
    if len(halves) == 2:
        splits |= {f"devkit_{name}": {name: ids} for name, ids in halves.items()}
        if both := set(found["train"]) & set(found["val"]):
            raise ValueError(f"{main}: {min(both)} is both in train.txt and in val.txt.")
        if "trainval" in found and set(found["trainval"]) != set(found["train"]) | set(found["val"]):
            odd = set(found["trainval"]) ^ (set(found["train"]) | set(found["val"]))
            raise ValueError(
                f"{main}: trainval.txt is not train.txt and val.txt together: {min(odd)}, and"
                f" {len(odd) - 1} more, stand on one side only."
            )
    if not splits:
        raise FileNotFoundError(f"{main} holds none of train.txt, val.txt, trainval.txt, test.txt.")
    for name in found:
        if name != "test" and (both := set(found[name]) & set(found.get("test", ()))):
            raise ValueError(f"{main}: {min(both)} is both in {name}.txt and in test.txt.")
    return splits


def _read_ids(path: Path) -> list[str]:
    with naming(path):
        ids = path.read_text().split()
    if not ids:
        raise ValueError(f"{path} lists no picture.")
    outside = next((id for id in ids if "/" in id), None)
    if outside:
        raise ValueError(f"{path}: {outside} is not the name of a picture in JPEGImages.")
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ValueError(f"{path}: {twice} is listed twice.")
    return ids


def _samples(root: Path, parts: dict[str, list[str]], *, labelled: bool) -> Iterator[Sample]:
    for name, ids in parts.items():
        listed = states_from_lists(root / "ImageSets" / "Main", name, ids) if labelled else None
        disagreements = []
        for id in ids:
            image = root / "JPEGImages" / f"{id}.jpg"
            if not image.exists():
                raise FileNotFoundError(f"{image} is missing, but ImageSets/Main/{name}.txt lists it.")
            if not labelled:
                yield Sample(id=id, image=image, present=(), unknown=tuple(range(len(VOC_CLASSES))))
                continue
            objects = read_objects(root / "Annotations" / f"{id}.xml")
            states = states_from_objects(objects)
            if listed is not None:
                disagreements += [(id, c) for c in range(len(VOC_CLASSES)) if listed[id][c] != states[c]]
                states = listed[id]
            boxed = [(label, box) for label, _, box in objects if box is not None]
            yield Sample(
                id=id,
                image=image,
                present=tuple(c for c, state in enumerate(states) if state != ABSENT),
                difficult=tuple(c for c, state in enumerate(states) if state == DIFFICULT),
                boxes=tuple(box for _, box in boxed),
                box_labels=tuple(label for label, _ in boxed),
            )
        if disagreements:
            id, label = disagreements[0]
            _log.warning(
                "VOC %s: the per-class lists and Annotations disagree in %d of %d labels, first about %s in"
                " %s; the lists are taken.",
                *(name, len(disagreements), len(ids) * len(VOC_CLASSES), VOC_CLASSES[label], id),
            )


def states_from_lists(main: Path, name: str, ids: list[str]) -> dict[str, list[int]] | None:
    """Picture id -> PRESENT, DIFFICULT or ABSENT of each class, from `<class>_<name>.txt`.

    Returns:
        None if there is no such list of any class.
    """
    paths = [main / f"{label}_{name}.txt" for label in VOC_CLASSES]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise FileNotFoundError(f"{missing[0]} is missing, beside {len(paths) - len(missing)} lists like it.")
    states: dict[str, list[int]] = {id: [] for id in ids}
    for place, path in enumerate(paths):
        for row, line in enumerate(path.read_text().splitlines(), start=1):
            words = line.split()
            if len(words) != 2 or words[1] not in ("1", "0", "-1"):
                raise ValueError(
                    f"{path}, line {row}: expected a picture's id and 1, 0 or -1. Received: {line[:60]}"
                )
            if words[0] not in states or len(states[words[0]]) != place:
                raise ValueError(f"{path}, line {row}: {words[0]} is not in {name}.txt, or is here twice.")
            states[words[0]].append(int(words[1]))
        short = next((id for id in ids if len(states[id]) != place + 1), None)
        if short is not None:
            raise ValueError(f"{path} lacks {short}, which {name}.txt lists.")
    return states


def states_from_objects(objects: list[Object]) -> list[int]:
    """PRESENT, DIFFICULT or ABSENT for each class: it is difficult if it appears only as difficult objects."""
    easy = {label for label, difficult, _ in objects if not difficult}
    seen = {label for label, _, _ in objects}
    return [PRESENT if c in easy else DIFFICULT if c in seen else ABSENT for c in range(len(VOC_CLASSES))]


def read_objects(path: Path) -> list[Object]:
    """The objects of one `Annotations/*.xml`. A box without an area is None.

    The devkit's boxes are px counted from 1, the last one included; ours (ymin, xmin, ymax, xmax) fractions.
    """
    tree = read_xml(path)
    width, height = _number(path, tree, "size/width"), _number(path, tree, "size/height")
    if width < 1 or height < 1:
        raise ValueError(f"{path}: `size` must be positive. Received: {width:g} x {height:g}")
    objects: list[Object] = []
    for entry in tree.iter("object"):
        name = entry.findtext("name", default="").strip()
        if name not in VOC_CLASSES:
            raise ValueError(
                f"{path}: `{name}` is not a class of VOC.{nearest(name, VOC_CLASSES)} Classes of your own are read"
                " with `--dataset table`."
            )
        difficult = entry.findtext("difficult", "0").strip() == "1"
        objects.append((VOC_CLASSES.index(name), difficult, box_of(path, entry, width, height)))
    return objects


def box_of(path: Path, entry: ElementTree.Element, width: float, height: float) -> Box | None:
    """The box of an object on a picture of that many px; None if it has none, only an outline, or has no area."""
    if entry.find("bndbox") is None:
        return None
    box = (
        max(0.0, (_number(path, entry, "bndbox/ymin") - 1) / height),
        max(0.0, (_number(path, entry, "bndbox/xmin") - 1) / width),
        min(1.0, _number(path, entry, "bndbox/ymax") / height),
        min(1.0, _number(path, entry, "bndbox/xmax") / width),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file in any encoding that Python knows; the parser itself knows few.

    Raises:
        ValueError: names the file, and what is wrong with it.
    """
    with naming(path):
        content = path.read_bytes()
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from None
    except (ValueError, LookupError):  # an encoding of several bytes per character, or an unknown one
        pass
    declared = DECLARATION.match(content)
    name = declared[1].decode("ascii", "replace") if declared else "none"
    try:
        # GB 2312 and GBK are read as GB 18030, which has all of their characters.
        text = content[declared.end() if declared else 0 :].decode(GB18030.get(name.lower(), name))
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f"{path} says encoding=`{name:.40}`, by which it can't be read ({error}). Save it as UTF-8."
        ) from None


def _number(path: Path, element: ElementTree.Element, tag: str) -> float:
    text = element.findtext(tag, default="")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: `{tag}` must be a number. Received: {text!r:.40}")
    return value
