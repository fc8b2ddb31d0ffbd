"""Read a raw set by its name: which readers there are, and their options."""

import dataclasses
import importlib
import inspect
import shlex
from pathlib import Path
from typing import Any, Literal

from pipelines.command import option
from pipelines.samples import RawSet
from pipelines.words import nearest, spell, typed

# name -> module, reader and its options; all but `digits` take the folder of the original files first.
READERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits": ("pipelines.readers.digits", "read_digits", {}),
    "coco": ("pipelines.readers.coco", "read_coco", {"year": 2014}),
    "coco2017": ("pipelines.readers.coco", "read_coco", {"year": 2017}),
    "voc2007": ("pipelines.readers.voc", "read_voc", {"year": 2007}),
    "voc2012": ("pipelines.readers.voc", "read_voc", {"year": 2012}),
    "table": ("pipelines.readers.table", "read_table", {}),
}
TFDS_NAMES = {"coco": "coco/2014", "coco2017": "coco/2017", "voc2007": "voc/2007", "voc2012": "voc/2012"}
SOURCE = "what is built"
READING = "of particular sets"  # options that are passed to the reader if they are given


@dataclasses.dataclass
class ReadingOptions:
    """Which set is read, and from where."""

    dataset: str = option("digits", f"Which set: {', '.join(READERS)}.", group=SOURCE)
    source: Path | None = option(
        None,
        "The original files: a folder, for `table` also a file; or `tfds`, or `tfds:FOLDER` of TFDS' own.",
        group=SOURCE,
    )
    seed: int | None = option(
        None, "digits, table: of the scenes; of the division into splits.", group=READING
    )
    keep_unlabelled: bool = option(False, "coco: keep pictures without any object.", group=READING)
    manual_dir: Path | None = option(None, "tfds: folder of the original archives.", group=READING)
    images: Path | None = option(None, "table: folder to which its files are relative.", group=READING)
    classes: Path | None = option(None, "table: text file of the class names, one a line.", group=READING)
    file_column: str | None = option(None, "table: the column that names the pictures.", group=READING)
    labels_column: str | None = option(None, "table: the column that holds the labels.", group=READING)
    group_column: str | None = option(
        None, "table: the column whose equal cells say that pictures must come into one split.", group=READING
    )
    separator: str | None = option(
        None, "table: what stands between the labels of one cell, by default `;`.", group=READING
    )
    extension: str | None = option(
        None, "table: what is missing behind the names of files, such as .jpg.", group=READING
    )
    none_label: str | None = option(
        None, "table: the label that says that none of the classes is there.", group=READING
    )
    same_name: Literal["one", "several"] | None = option(
        None, "table, a folder a class: what files of one name in several folders are.", group=READING
    )
    minus_one: Literal["difficult", "absent", "unknown"] | None = option(
        None, "table: what -1 says in a column per class; difficult where there are 0, too.", group=READING
    )
    name: str | None = option(None, "table: name of the prepared set, instead of `table`.", group=READING)
    val_fraction: float | None = option(None, "table without splits: share of `validation`.", group=READING)
    test_fraction: float | None = option(None, "table without splits: share of `test`.", group=READING)
    folds: int | None = option(
        None, "table without splits: number of folds, of which `fit --fold` leaves one out.", group=READING
    )
    licence: str | None = option(
        None, "table: terms of its pictures, to be kept with the set.", group=READING
    )

    @property
    def set_name(self) -> str:
        """The prepared set's folder name."""
        return self.name or self.dataset


def build_command(name: str, data_dir: Path | str) -> str:
    """The command that builds the prepared set `name`, for users who don't have the set."""
    known = f"--dataset {name}" if name in READERS else f"--dataset table --name {shlex.quote(name)}"
    source = " --source FOLDER" if name in READERS else " --source TABLE"
    return (
        f"{typed('pipelines.build')} {known}{'' if name == 'digits' else source}"
        f" --data-dir {shlex.quote(str(data_dir))}"
    )


def read_by_options(options: ReadingOptions, **more: Any) -> RawSet:
    """The raw set that the options of a command line name; `more` are options of its reader."""
    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.metadata["group"] == READING
    }
    reading = {name: value for name, value in given.items() if value is not None and value is not False}
    return read_raw_set(options.dataset, options.source, **reading, **more)


def read_raw_set(dataset: str, source: Path | str | None = None, **options: Any) -> RawSet:
    """The raw set of a name in `READERS`.

    Args:
        dataset: the name.
        source: the original files; `tfds` or `tfds:FOLDER` for what TensorFlow Datasets downloads or has in FOLDER;
            None for digits alone.
        options: the reader's own.
    """
    if dataset not in READERS:
        raise ValueError(
            f"`--dataset` must be one of {', '.join(READERS)}. Received: {dataset!r}.{nearest(dataset, READERS)}"
        )
    module, function, fixed = READERS[dataset]
    arguments: list[Any] = [] if source is None else [source]
    if dataset == "digits" and source is not None:
        raise ValueError("`--source` does nothing for digits, which are made on the spot. Leave it out.")
    if dataset != "digits" and source is None:
        raise ValueError(f"`--source` must name the original files of {dataset}.")
    scheme, _, folder = str(source).partition(":")
    if scheme == "tfds":
        if dataset not in TFDS_NAMES:
            raise ValueError(f"TFDS is a source of {', '.join(TFDS_NAMES)}. Received: {dataset!r}")
        module, function, fixed = "pipelines.readers.tfds", "read_tfds", {}
        arguments = [TFDS_NAMES[dataset], folder or None]
    read = getattr(importlib.import_module(module), function)
    for name in options:
        if name not in inspect.signature(read).parameters:
            raise ValueError(f"`--{spell(name)}` does nothing for {dataset}. Leave it out.")
    if options.get("seed", 0) < 0:
        raise ValueError(f"`--seed` must be 0 or more. Received: {options['seed']}")
    return read(*arguments, **fixed, **options)
