"""The manifest of a prepared set, `dataset.json`: classes, provenance, splits and their shards.

A prepared set is a folder:

    <data-dir>/<name>/<split>-00000-of-000NN.tfrecord    records, compressed only as their pictures are
    <data-dir>/<name>/dataset.json                       the manifest, written last: without it, no set
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.files import write_text
from pipelines.readers.registry import build_command
from pipelines.reading import read_json
from pipelines.samples import Skip, fold_name
from pipelines.typed import from_json

SCHEMA_VERSION = 1  # of records and manifest
MANIFEST = "dataset.json"
# The manifest of a hundred million pictures takes some 50 MB, and more for the names of pictures that were left out.
MAX_MANIFEST_BYTES = 2**30
SHARD_NAME = re.compile(r"[A-Za-z0-9_]+-\d{5,}-of-\d{5,}(-b)?\.tfrecord")  # as `records.shard_name` gives it


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a prepared set, as the manifest knows it."""

    name: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared set.

    Attributes:
        folder: where its shards lie.
        examples: pictures.
        present, difficult, unknown: pictures per class, `difficult` and `unknown` as in `Sample`.
        shards: in order.
        skipped: the pictures left out, and why.
        remarks: what was done to pictures, or is odd about them, in words for a person -> how many pictures.
    """

    folder: Path
    examples: int
    present: tuple[int, ...]
    difficult: tuple[int, ...]
    unknown: tuple[int, ...]
    shards: tuple[Shard, ...]
    skipped: tuple[Skip, ...]
    remarks: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [self.folder / shard.name for shard in self.shards]


def join_splits(splits: Sequence[Split]) -> Split:
    """Several splits of one set as one, made of the same shards."""
    remarks: Counter[str] = Counter()
    for split in splits:
        remarks.update(split.remarks)
    present, difficult, unknown = (
        tuple(sum(counts) for counts in zip(*(getattr(split, kind) for split in splits), strict=True))
        for kind in ("present", "difficult", "unknown")
    )
    return Split(
        folder=splits[0].folder,
        examples=sum(split.examples for split in splits),
        present=present,
        difficult=difficult,
        unknown=unknown,
        shards=tuple(shard for split in splits for shard in split.shards),
        skipped=tuple(skip for split in splits for skip in split.skipped),
        remarks=dict(remarks),
    )


class Part(NamedTuple):
    """Neighbouring records of a shard: `limit` of them from number `start` on, or all from there on (-1)."""

    path: Path
    start: int = 0
    limit: int = -1


@dataclasses.dataclass(frozen=True)
class Portion:
    """A portion of a split's pictures: takes the place of a `Split` where only these two are needed."""

    files: list[Part]
    examples: int


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Portion, Portion]:
    """Divide a split into (the rest, a random share that is held out), without reading it.

    Pictures lie in their shards in random order, so neighbours are a random sample; where they begin is random.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"The fraction to hold out must lie in (0, 1). Received: {fraction}")
    rest, held = [], []
    sizes = [shard.examples for shard in split.shards]
    before = held_before = 0
    for number, (file, size) in enumerate(zip(split.files, sizes, strict=True)):
        before += size
        count = round(fraction * before) - held_before
        held_before += count
        start = int(np.random.default_rng([seed, number]).integers(0, size - count + 1))
        held.append(Part(file, start, count))
        rest += [Part(file, 0, start), Part(file, start + count, size - start - count)]
    if not 0 < held_before < split.examples:
        raise ValueError(f"{fraction:g} of {split.examples} pictures leaves one side without any.")
    return (
        Portion([part for part in rest if part.limit], split.examples - held_before),
        Portion([part for part in held if part.limit], held_before),
    )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `dataset.json` says: a prepared set's classes, provenance and splits.

    Attributes:
        grouped_by: the column of the groups that each lie in one split; "" where there are none.
    """

    name: str
    classes: tuple[str, ...]
    source: str
    licence: str
    splits: dict[str, Split]
    grouped_by: str = ""

    @property
    def content_hash(self) -> str:
        """A hash of all pictures and labels; two sets of the same one have the same records."""
        sums = [f"{name} {shard.sha256}\n" for name, split in self.splits.items() for shard in split.shards]
        return hashlib.sha256("".join(sums).encode()).hexdigest()

    @property
    def folds(self) -> list[str]:
        """The splits `fold1`, `fold2`, ..., in order; empty if the set was not divided into folds.

        Those of a table's own may begin at `fold0`.
        """
        numbers = itertools.count(0 if fold_name(0) in self.splits else 1)
        names = list(itertools.takewhile(self.splits.__contains__, map(fold_name, numbers)))
        return names if len(names) > 1 and "train" not in self.splits else []


def load_manifest(data_dir: Path, name: str, check_files: bool = True) -> Manifest:
    """Read the manifest of the prepared set `<data_dir>/<name>`.

    Args:
        data_dir: where prepared sets lie.
        name: of the set.
        check_files: check that every shard is there and has its size. `--verify` reads their bytes too.

    Raises:
        FileNotFoundError: the set was never built, its build did not finish, or a shard is gone.
        ValueError: it is of another schema version, is damaged, or a shard is of another size.
    """
    folder = Path(data_dir) / name
    path = folder / MANIFEST
    if not path.is_file():
        state = f"holds an unfinished build: it has no file {MANIFEST}" if folder.is_dir() else "is not there"
        raise FileNotFoundError(
            f"The prepared set {folder} {state}. Build it: {build_command(name, data_dir)}"
        )
    rebuild = f"Build it anew: {build_command(name, data_dir)} --overwrite"
    try:
        manifest = _from_json(read_json(path, MAX_MANIFEST_BYTES), folder)
    except ValueError as error:
        raise ValueError(f"{error} {rebuild}") from error
    for split in manifest.splits.values() if check_files else ():
        for file, shard in zip(split.files, split.shards, strict=True):
            if not file.is_file():
                raise FileNotFoundError(f"{file} is gone, which {path} names. {rebuild}")
            if file.stat().st_size != shard.bytes:
                raise ValueError(
                    f"{file} is damaged: {file.stat().st_size} bytes instead of {shard.bytes}. {rebuild}"
                )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json` atomically; from that moment on the set exists."""
    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(manifest)}
    if not manifest.grouped_by:
        del content["grouped_by"]
    for split in content["splits"].values():
        del split["folder"]
        if not split["remarks"]:
            del split["remarks"]
    content["checksum"] = _checksum(content)
    write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _from_json(content: Any, folder: Path) -> Manifest:
    """Read and check what `write_manifest` wrote, so that no later code needs to doubt its numbers and names."""
    path = folder / MANIFEST
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} is of schema version {version!r:.20}; this program reads version {SCHEMA_VERSION}."
        )
    checksum = content.pop("checksum", None)
    splits = content.get("splits")
    if not isinstance(splits, dict) or not splits:
        raise ValueError(f"{path}: `splits` must be an object that names splits. Received: {splits!r:.60}")
    manifest = from_json(
        Manifest,
        {name: value for name, value in content.items() if name not in ("schema_version", "splits")},
        str(path),
        splits={
            name: from_json(Split, split, f"{path}, split {name!r:.60}", folder=folder)
            for name, split in splits.items()
        },
    )
    for name, split in manifest.splits.items():
        _check_split(f"{path}, split {name!r:.60}", name, split, len(manifest.classes))
    if len(set(manifest.classes)) < len(manifest.classes) or not manifest.classes:
        raise ValueError(f"{path}: `classes` must be names, each of them once.")
    if checksum != _checksum(content):
        raise ValueError(f"{path} is damaged: its checksum is not that of what it says.")
    return manifest


def _check_split(where: str, name: str, split: Split, num_classes: int) -> None:
    """Refuse numbers and names that no build writes."""
    for kind in ("present", "difficult", "unknown"):
        counts = getattr(split, kind)
        if len(counts) != num_classes or not all(0 <= count <= split.examples for count in counts):
            raise ValueError(
                f"{where}: `{kind}` must be {num_classes} numbers, one a class, in [0, {split.examples}]."
            )
    for shard in split.shards:
        if not SHARD_NAME.fullmatch(shard.name) or not shard.name.startswith(f"{name}-"):
            raise ValueError(f"{where}: `{shard.name!r:.80}` is no shard of it.")
        if not (shard.examples >= 0 and shard.bytes >= 0 and re.fullmatch("[0-9a-f]{64}", shard.sha256)):
            raise ValueError(f"{where}: what it says of {shard.name} can't be.")
    if split.examples < 1 or sum(shard.examples for shard in split.shards) != split.examples:
        raise ValueError(f"{where}: `examples` must be the sum of its shards'. Received: {split.examples}")
