"""One labelled picture, before it is a record; and a raw set, which is splits of them."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Sample:
    """One labelled picture. Classes are indices into the set's class names.

    Attributes:
        id: unique in its set; `[A-Za-z0-9_./-]`, for COCO and VOC the original image id or file stem.
        image: the file that holds the encoded picture, or its bytes. They are never re-encoded.
        present: classes that are in the picture, difficult ones included, ascending.
        difficult: those of `present` that appear as difficult objects only.
        unknown: classes of which nobody knows whether they are in the picture; they weigh nothing.
        boxes: one (ymin, xmin, ymax, xmax) an object, as fractions of the upright picture.
        box_labels: the class of each box.
    """

    id: str
    image: Path | bytes
    present: tuple[int, ...]
    difficult: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    box_labels: tuple[int, ...] = ()


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
        licence: under which terms its pictures are, or "".
        skipped: per split, what the reader left out; complete once the split's samples were iterated.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Callable[[], Iterator[Sample]]]
    source: str
    licence: str = ""
    skipped: dict[str, list[Skip]] = dataclasses.field(default_factory=dict)
