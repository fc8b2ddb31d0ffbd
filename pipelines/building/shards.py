"""Samples of one shard in, the shard and what the manifest says of it out, wherever it is built.

A finished shard leaves a note beside it, by which a build that was stopped knows what it need not do again.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pipelines import records
from pipelines.files import file_sha256, write_text
from pipelines.manifest import SCHEMA_VERSION, Shard
from pipelines.pictures import MAX_MEGAPIXELS, MOST_MEGAPIXELS, BadPicture, check_picture
from pipelines.samples import Sample, Skip

OnBadImage = Literal["skip", "stop"]

VALID_ID = re.compile(r"[A-Za-z0-9_./-]+")
WORK_FOLDER = ".building"  # of an unfinished build, inside the set's folder


def check_handling(on_bad_image: OnBadImage, max_megapixels: float) -> None:
    """Refuse values that say nothing about what to do with a picture."""
    if on_bad_image not in get_args(OnBadImage):
        raise ValueError(f"`on_bad_image` must be skip or stop. Received: {on_bad_image!r}")
    if not 0 < max_megapixels <= MOST_MEGAPIXELS:
        raise ValueError(f"`max_megapixels` must lie in (0, {MOST_MEGAPIXELS}]. Received: {max_megapixels:g}")


@dataclasses.dataclass(frozen=True)
class BuiltShard:
    """A finished shard and what the manifest will say of its pictures; counts are per class."""

    shard: Shard
    present: tuple[int, ...]
    difficult: tuple[int, ...]
    unknown: tuple[int, ...]
    skipped: tuple[Skip, ...]


class StampedSample(NamedTuple):
    """A sample on its way to its shard, and what tells whether its file is still the same."""

    sample: Sample
    stamp: tuple[int, int] | str  # size and time of change of the file, or the hash of the bytes


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be built from its file of samples."""

    folder: Path
    split: str
    shard: int
    num_shards: int
    num_classes: int
    on_bad_image: OnBadImage
    max_megapixels: float

    @property
    def path(self) -> Path:
        return self.folder / records.shard_name(self.split, self.shard, self.num_shards)

    @property
    def note(self) -> Path:
        """What is known of the finished shard, for a build that goes on."""
        return self.folder / WORK_FOLDER / f"{self.path.name}.json"


def finish_shard(
    task: ShardTask, spooled: Sequence[StampedSample], on_picture: Callable[[int], object]
) -> BuiltShard:
    """Build a shard, unless an earlier build did from the same samples and it still is as it was written."""
    digest = _digest(task, spooled)
    built = _read_note(task, digest)
    if built is not None:
        on_picture(len(spooled))
        return built
    built = build_shard(
        task.path,
        (item.sample for item in spooled),
        task.num_classes,
        on_bad_image=task.on_bad_image,
        max_megapixels=task.max_megapixels,
        on_picture=on_picture,
    )
    note = json.dumps({"digest": digest, **dataclasses.asdict(built)})
    write_text(task.note, note)
    return built


def build_shard(
    path: Path,
    samples: Iterable[Sample],
    num_classes: int,
    *,
    on_bad_image: OnBadImage = "skip",
    max_megapixels: float = MAX_MEGAPIXELS,
    on_picture: Callable[[int], object] = lambda count: None,
) -> BuiltShard:
    """Read, check and write the pictures that belong into one shard, in any order.

    Args:
        path: of the shard; it is there only once it is whole.
        samples: all those for which `records.shard_of` gives this shard.
        num_classes: of the set.
        on_bad_image: as in `build_set`.
        max_megapixels: as in `build_set`.
        on_picture: is called with 1 after every picture.
    """
    counts = {kind: [0] * num_classes for kind in ("present", "difficult", "unknown")}
    skipped: list[Skip] = []

    def serialized() -> Iterator[bytes]:
        previous = None
        for sample in sorted(samples, key=_order):
            if sample.id == previous:
                raise ValueError(f"Two pictures of {path.name.split('-')[0]} have the id {sample.id!r}.")
            previous = sample.id
            encoded = sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()
            try:
                picture = check_picture(encoded, max_megapixels)
            except BadPicture as error:
                if on_bad_image == "stop":
                    where = sample.id if isinstance(sample.image, bytes) else sample.image
                    raise ValueError(
                        f"{where} {error}. (--on-bad-image skip leaves such pictures out.)"
                    ) from error
                skipped.append(Skip(sample.id, str(error)))
            else:
                for kind, count in counts.items():
                    for label in getattr(sample, kind):
                        count[label] += 1
                yield records.serialize_record(sample, picture)
            on_picture(1)

    shard = records.write_shard(path, serialized())
    present, difficult, unknown = (tuple(count) for count in counts.values())
    return BuiltShard(shard, present, difficult, unknown, tuple(skipped))


def check_sample(sample: Sample, split: str, num_classes: int) -> None:
    """Refuse an id or a label that a record cannot hold."""
    if not VALID_ID.fullmatch(sample.id):
        raise ValueError(f"The id {sample.id!r} in {split} has characters other than A-Z a-z 0-9 _ . / -")
    for label in (*sample.present, *sample.difficult, *sample.unknown, *sample.box_labels):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"The picture {sample.id} in {split} has class {label}; there are {num_classes}."
            )


def encoded_size(sample: Sample) -> int:
    """The bytes of a sample's file; those of a split together decide its number of shards."""
    return len(sample.image) if isinstance(sample.image, bytes) else sample.image.stat().st_size


def stamp(sample: Sample) -> tuple[int, int] | str:
    if isinstance(sample.image, bytes):
        return hashlib.sha256(sample.image).hexdigest()
    status = sample.image.stat()
    return status.st_size, status.st_mtime_ns


def _digest(task: ShardTask, spooled: Sequence[StampedSample]) -> str:
    """A hash of all that a shard follows from."""
    everything = hashlib.sha256(
        repr((SCHEMA_VERSION, task.num_classes, task.on_bad_image, task.max_megapixels)).encode()
    )
    for item in sorted(spooled, key=lambda item: _order(item.sample)):
        sample = (
            dataclasses.replace(item.sample, image=b"")
            if isinstance(item.sample.image, bytes)
            else item.sample
        )
        everything.update(repr((sample, item.stamp)).encode())
    return everything.hexdigest()


def _read_note(task: ShardTask, digest: str) -> BuiltShard | None:
    if not task.note.exists() or not task.path.exists():
        return None
    note = json.loads(task.note.read_text())
    if note.pop("digest") != digest or file_sha256(task.path) != note["shard"]["sha256"]:
        return None
    return BuiltShard(
        shard=Shard(**note["shard"]),
        present=tuple(note["present"]),
        difficult=tuple(note["difficult"]),
        unknown=tuple(note["unknown"]),
        skipped=tuple(Skip(**skip) for skip in note["skipped"]),
    )


def _order(sample: Sample) -> tuple[bytes, str]:
    return records.sort_key(sample.id), sample.id
