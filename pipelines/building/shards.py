"""Build one shard from its packed samples, on any machine, with what the manifest will say of it.

A note is written for each finished shard, so that a resumed build does not build it again.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

from pipelines import records
from pipelines.building.boxes import upright_boxes
from pipelines.building.packing import Packed
from pipelines.files import file_sha256, write_text
from pipelines.manifest import SCHEMA_VERSION, Shard
from pipelines.pictures import MAX_MEGAPIXELS, MOST_MEGAPIXELS, BadPicture, Picture, check_picture, read_file
from pipelines.reading import read_json
from pipelines.samples import Sample, Skip
from pipelines.typed import from_json

OnBadImage = Literal["skip", "stop"]

WORK_FOLDER = ".building"  # of an unfinished build, inside the set's folder
MAX_NOTE_BYTES = 2**28


def check_handling(on_bad_image: OnBadImage, max_megapixels: float) -> None:
    """Refuse invalid values of the options that say what to do with a picture."""
    if on_bad_image not in get_args(OnBadImage):
        raise ValueError(f"`on-bad-image` must be skip or stop. Received: {on_bad_image!r}")
    if not 0 < max_megapixels <= MOST_MEGAPIXELS:
        raise ValueError(f"`max-megapixels` must lie in (0, {MOST_MEGAPIXELS}]. Received: {max_megapixels:g}")


@dataclasses.dataclass(frozen=True)
class BuiltShard:
    """A finished shard and what the manifest will say of its pictures; counts are per class."""

    shard: Shard
    present: tuple[int, ...]
    difficult: tuple[int, ...]
    unknown: tuple[int, ...]
    skipped: tuple[Skip, ...]
    remarks: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be built.

    Attributes:
        path: of the shard.
        split, shard, num_shards: which one it is.
        num_classes: of the set.
        on_bad_image, max_megapixels: as in `build_set`.
    """

    path: Path
    split: str
    shard: int
    num_shards: int
    num_classes: int
    on_bad_image: OnBadImage
    max_megapixels: float

    @property
    def note(self) -> Path:
        """The file that describes the finished shard, for a resumed build."""
        return self.path.parent / WORK_FOLDER / f"{self.path.name}.json"


@dataclasses.dataclass(frozen=True)
class _Note:
    digest: str
    built: BuiltShard


def finish_shard(
    task: ShardTask,
    samples: Callable[[], Iterable[Packed]],
    on_picture: Callable[[int], object],
) -> BuiltShard:
    """Build a shard, unless an earlier build built it from the same samples and it is still as it was written.

    Args:
        task: which shard.
        samples: gives all samples of the shard, in the order of `records.sort_key`, at every call.
        on_picture: is called with the number of pictures done since the last call.
    """
    digest, count = _digest(task, samples())
    built = _read_note(task, digest)
    if built is not None:
        on_picture(count)
        return built
    built = build_shard(
        task.path,
        (packed.sample() for packed in samples()),
        task.num_classes,
        on_bad_image=task.on_bad_image,
        max_megapixels=task.max_megapixels,
        on_picture=on_picture,
    )
    write_text(task.note, json.dumps(dataclasses.asdict(_Note(digest, built))))
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
    """Read, check and write the pictures that belong to one shard.

    Args:
        path: of the shard; the file appears only once it is complete.
        samples: all those for which `records.shard_of` gives this shard, in the order of `records.sort_key`.
        num_classes: of the set.
        on_bad_image: as in `build_set`.
        max_megapixels: as in `build_set`.
        on_picture: is called with 1 after every picture.
    """
    counts = {kind: [0] * num_classes for kind in ("present", "difficult", "unknown")}
    skipped: list[Skip] = []
    remarks: Counter[str] = Counter()

    def serialized() -> Iterator[bytes]:
        previous = None
        for sample in samples:
            if sample.id == previous:
                raise ValueError(f"Two pictures of {path.name.split('-')[0]} have the id {sample.id!r}.")
            previous = sample.id
            try:
                picture = _read_picture(sample, max_megapixels)
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
                boxes, remark = upright_boxes(sample, picture)
                if remark:
                    remarks[remark] += 1
                yield records.serialize_record(dataclasses.replace(sample, boxes=boxes), picture)
            on_picture(1)

    shard = records.write_shard(path, serialized())
    present, difficult, unknown = (tuple(count) for count in counts.values())
    return BuiltShard(shard, present, difficult, unknown, tuple(skipped), dict(remarks))


def _read_picture(sample: Sample, max_megapixels: float) -> Picture:
    """Read the picture of a sample and make sure that it decodes.

    Raises:
        BadPicture: it can't be used, or its file can't be read though it is there.
        FileNotFoundError: its file was listed, but is gone.
    """
    image = sample.image
    encoded = image if isinstance(image, bytes) else read_file(image, max_megapixels)
    return check_picture(encoded, max_megapixels)


def _digest(task: ShardTask, samples: Iterable[Packed]) -> tuple[str, int]:
    """A hash of everything that a shard depends on, and its number of samples."""
    everything = hashlib.sha256(
        repr((SCHEMA_VERSION, task.num_classes, task.on_bad_image, task.max_megapixels)).encode()
    )
    count = 0
    for packed in samples:
        everything.update(packed.line)
        count += 1
    return everything.hexdigest(), count


def _read_note(task: ShardTask, digest: str) -> BuiltShard | None:
    """The shard as its note describes it; None if there is no note, or the shard does not match it."""
    if not task.note.is_file() or not task.path.is_file() or task.path.is_symlink():
        return None
    try:
        note = from_json(_Note, read_json(task.note, MAX_NOTE_BYTES), str(task.note))
    except ValueError:  # cut off, or of another version of this program: then it is built anew
        return None
    built = note.built
    counts = (built.present, built.difficult, built.unknown)
    if note.digest != digest or {*map(len, counts)} != {task.num_classes}:
        return None
    return built if file_sha256(task.path) == built.shard.sha256 else None
