"""The options of every command that builds, and what such a command prints at the end."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.building.sets import refuse_complete
from pipelines.building.shards import OnBadImage
from pipelines.command import option
from pipelines.manifest import MANIFEST, Manifest
from pipelines.pictures import MAX_MEGAPIXELS, MOST_MEGAPIXELS
from pipelines.readers.registry import SOURCE, ReadingOptions, read_by_options
from pipelines.samples import RawSet
from pipelines.words import counted, listed, next_steps, typed

MOST_CLASSES = 100  # up to so many classes get a line each
SHOWN_CLASSES = 10  # if there are more: how many of the most frequent, and of the rarest
NAMED_CLASSES = 8  # how many are named in a sentence
MOST_LEFT_OUT = 0.02  # of a split's pictures; a larger share is reported
BUILDING = "how it is built"


@dataclasses.dataclass
class BuildOptions(ReadingOptions):
    """What is to be built, from where, and into which folder."""

    data_dir: Path = option(
        Path("data"), "Folder of the prepared sets; this one goes into <data-dir>/<dataset>.", group=SOURCE
    )
    on_bad_image: OnBadImage = option(
        "skip", "What to do with a picture that can't be used: skip it or stop.", group=BUILDING
    )
    max_megapixels: float = option(
        MAX_MEGAPIXELS,
        f"Largest picture that is accepted, in megapixels; at most {MOST_MEGAPIXELS}.",
        group=BUILDING,
    )
    overwrite: bool = option(False, "Replace the set if it has been built before.", group=BUILDING)
    dry_run: bool = option(False, "Build nothing: read the labels, say how, and count them.", group=BUILDING)


def read_to_build(options: BuildOptions, **more: Any) -> RawSet:
    """Read the raw set that the options name, unless it has been built; `more` are options of its reader.

    What the reader guessed is printed before anything is built from it.
    """
    if not options.overwrite and not options.dry_run:  # checked before anything is read or downloaded
        refuse_complete(options.data_dir / options.set_name)
    raw = read_by_options(options, **more)
    if raw.read_as:
        print(f"read as: {raw.read_as}", flush=True)
    for remark in raw.remarks:
        print(f"note: {remark}", flush=True)
    return raw


def print_plan(raw: RawSet) -> None:
    """Print what would be built: classes and splits."""
    print(f"classes: {listed(raw.classes)}")
    print(f"splits: {listed(raw.splits)}")
    print("Nothing was built: --dry-run.")


def print_outcome(manifest: Manifest, data_dir: Path) -> None:
    """Print how many pictures a built set has, which were left out, what classes it has, and what looks odd."""
    for name, split in manifest.splits.items():
        pictures, shards = counted(split.examples, "picture"), counted(len(split.shards), "shard")
        print(f"{name}: {pictures} in {shards}, {len(split.skipped):,} left out")
        for skip in split.skipped[:3]:
            print(f"  left out: {skip.id} {skip.why}")
        if len(split.skipped) > 3:
            print(f"  ... all are in {data_dir / manifest.name / MANIFEST}")
    print_classes(manifest)
    for doubt in find_doubts(manifest):
        print(f"look at this: {doubt}")
    print(f"Prepared: {data_dir / manifest.name}")
    where = "" if data_dir == Path("data") else f" --data-dir {shlex.quote(str(data_dir))}"
    fit = f"{typed('mcar_tf.fit')} --dataset {shlex.quote(manifest.name)}{where}"
    if manifest.folds:
        first = manifest.folds[0]
        what = f"a model of all of the {len(manifest.folds)} folds but {first}, on which it is measured"
        print(next_steps((f"{fit} --fold {first.removeprefix('fold')}", what)))
    elif "train" in manifest.splits:
        print(next_steps((fit, "a model of these pictures")))


def print_classes(manifest: Manifest) -> None:
    """Print how many pictures of each split show each class; of very many, the most frequent and the rarest."""
    pictures = np.sum([split.present for split in manifest.splits.values()], axis=0)
    order = list(range(len(pictures)))
    few = len(pictures) <= MOST_CLASSES
    if not few:
        by_number = np.argsort(-pictures, kind="stable").tolist()
        order = [*by_number[:SHOWN_CLASSES], *by_number[-SHOWN_CLASSES:]]
    title = counted(len(pictures), "class")
    length = max(len(title), *(len(manifest.classes[label]) for label in order))
    heads = {name: max(9, len(name) + 2) for name in manifest.splits}
    print(f"{title:{length}}" + "".join(f"{n:>{w}}" for n, w in heads.items()))
    for place, label in enumerate(order):
        row = "".join(f"{manifest.splits[n].present[label]:>{w},}" for n, w in heads.items())
        print(f"{manifest.classes[label]:{length}}{row}")
        if not few and place == SHOWN_CLASSES - 1:
            print(f"... {len(pictures) - 2 * SHOWN_CLASSES:,} more ...")


def find_doubts(manifest: Manifest) -> list[str]:
    """What looks wrong about a set, in sentences."""
    doubts = []
    present = {name: np.array(split.present) for name, split in manifest.splits.items()}
    nowhere = np.sum(list(present.values()), axis=0) == 0
    if nowhere.any():
        doubts.append(f"no picture shows {_names(manifest, nowhere)}")
    train = manifest.splits.get("train")
    if train is None and not manifest.folds:
        doubts.append(f"there is no split train; fit trains on another by --train-split {min(present)}")
    for name, split in manifest.splits.items():
        unknown = np.array(split.unknown) == split.examples
        lacking = (present[name] == 0) & ~nowhere & ~unknown
        if unknown.all():
            doubts.append(f"nothing is known of any picture of {name}: nothing can be measured on it")
        elif (present[name] == 0).all():
            doubts.append(f"no picture of {name} shows any class: nothing can be measured on it")
        elif lacking.any():
            why = "learnt" if name == "train" else "measured there"
            doubts.append(f"no picture of {name} shows {_names(manifest, lacking)}: can't be {why}")
        everywhere = (present[name] == split.examples - np.array(split.unknown)) & (present[name] > 1)
        if everywhere.any() and split.examples > 1:
            doubts.append(f"every picture of {name} shows {_names(manifest, everywhere)}")
        if name not in ("train", "validation", "test", *manifest.folds) and not name.startswith("devkit_"):
            doubts.append(f"the split {name} is used where it is named only: --eval-split {name}")
        if len(split.skipped) > MOST_LEFT_OUT * split.examples:
            share = len(split.skipped) / (split.examples + len(split.skipped))
            doubts.append(f"{share:.0%} of {name} was left out, the first: {split.skipped[0].why}")
        doubts += [f"{number:,} pictures of {name}: {remark}" for remark, number in split.remarks.items()]
    return doubts


def _names(manifest: Manifest, chosen: np.ndarray) -> str:
    """The chosen classes in words, at most `NAMED_CLASSES` of them: `3 classes (cat, dog, cow)`."""
    names = [manifest.classes[label] for label in np.flatnonzero(chosen)]
    shown = ", ".join(names[:NAMED_CLASSES]) + (", ..." if len(names) > NAMED_CLASSES else "")
    return f"the class {shown}" if len(names) == 1 else f"{len(names):,} classes ({shown})"
