"""`Sample`, one labelled picture before it becomes a record, and `RawSet`, splits of such samples."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

MAX_NAME = 200  # characters of a class name
# Control characters, line breaks, and (`TURNING`) marks that change the direction of the text after them.
NEVER_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One labelled picture. Classes are indices into the set's class names.

    Attributes:
        id: unique in its set; `[A-Za-z0-9_./-]`, for COCO and VOC the original image id or file stem.
        image: the file that holds the encoded picture, or its bytes. They are never re-encoded.
        present: classes that are in the picture, difficult ones included, ascending.
        difficult: those of `present` that appear as difficult objects only.
        unknown: classes of which nobody knows whether they are in the picture; they get weight 0.
        boxes: one (ymin, xmin, ymax, xmax) per object, as fractions of the upright picture.
        box_labels: the class of each box.
        measured: height and width in px of the picture on which the boxes were measured, where the source tells.
    """

    id: str
    image: Path | bytes
    present: tuple[int, ...]
    difficult: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_labels: tuple[int, ...] = ()
    measured: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Skip:
    """A picture that a reader or the build left out, and why, in words for a person."""

    id: str
    why: str


@dataclasses.dataclass
class RawSet:
    """What a reader returns: class names and, per split, a function that yields the samples.

    Attributes:
        name: the prepared set's folder name, `coco`, `voc2007`, ...
        classes: class names; a class's place here is its index everywhere.
        splits: split name -> function that yields its samples, in the same order at every call.
        source: where it was read from and how, for people.
        licence: the terms of its pictures, or "".
        skipped: per split, what the reader left out; complete once the split's samples have been iterated.
        remarks: what the reader guessed, in words for a person; to be shown before the set is used.
        read_as: how the source is read, in words for a person: columns, classes, pictures.
        grouped_by: the column of the groups that each lie in one split; "" where there are none.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Callable[[], Iterator[Sample]]]
    source: str
    licence: str = ""
    skipped: dict[str, list[Skip]] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    read_as: str = ""
    grouped_by: str = ""


def fold_name(number: int) -> str:
    """The split that holds fold `number` of a set that was divided into folds; `--folds` counts them from 1."""
    return f"fold{number}"


def is_fold(name: str) -> bool:
    """Whether a split has the name of a fold."""
    return re.fullmatch(r"fold(0|[1-9][0-9]*)", name) is not None


def check_class_names(names: Iterable[str]) -> None:
    """Refuse a list of class names if one of them is not a valid name or is given twice."""
    seen = set()
    for name in names:
        check_class_name(name)
        if name in seen:
            raise ValueError(f"The class `{name}` is named twice.")
        seen.add(name)


def check_class_name(name: str) -> None:
    """Refuse a class name that a list with one name per line, a table or a terminal would garble."""
    if not name or name != name.strip():
        raise ValueError(f"A class name must not be empty, nor have space around it. Received: {name!r:.80}")
    if len(name) > MAX_NAME:
        raise ValueError(
            f"A class name must have at most {MAX_NAME} characters. Received {len(name):,}: {name!r:.80}"
        )
    bad = [c for c in name if unicodedata.category(c) in NEVER_IN_NAMES or c in TURNING]
    if bad:
        raise ValueError(
            f"A class name must not hold line breaks or control characters. Received: {name!r:.80}"
        )
