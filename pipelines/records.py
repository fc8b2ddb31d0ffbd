"""The record schema, written and parsed side by side; shards of records; the manifest of a prepared set.

A prepared set is a folder:

    <data-dir>/<name>/<split>-00000-of-000NN.tfrecord    records, compressed only as their pictures are
    <data-dir>/<name>/dataset.json                       the manifest, written last: without it, no set

Nothing here loads TensorFlow before a record is written or parsed.
"""

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.files import file_sha256, write_text, written_whole
from pipelines.pictures import Picture
from pipelines.samples import Sample, Skip

if TYPE_CHECKING:
    import tensorflow as tf

SCHEMA_VERSION = 1
MANIFEST = "dataset.json"
SHARD_BYTES = 100 * 2**20  # of encoded pictures: big enough for a disk to stream, small enough to spread


# --- Record


def serialize_record(sample: Sample, picture: Picture) -> bytes:
    """A sample and its picture -> the bytes of a `tf.train.Example`; the same input gives the same bytes."""
    import tensorflow as tf

    def ints(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def blob(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    feature = {
        "image/encoded": blob(picture.encoded),
        "image/id": blob(sample.id.encode()),
        "image/height": ints(picture.height),
        "image/width": ints(picture.width),
        "image/orientation": ints(picture.orientation),
        "label/present": ints(*sample.present),
        "label/difficult": ints(*sample.difficult),  # of the present ones, seen as difficult objects only
        "label/unknown": ints(*sample.unknown),
        "object/label": ints(*sample.box_labels),
        # ymin xmin ymax xmax of each object, one after the other: fractions of the upright picture.
        "object/box": tf.train.Feature(
            float_list=tf.train.FloatList(value=[edge for box in sample.boxes for edge in box])
        ),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def parse_record(record: "tf.Tensor") -> dict[str, "tf.Tensor"]:
    """The bytes of a record -> what training and evaluation need of it, in graph mode.

    Returns:
        `encoded` and `id` () string, `orientation` () int64, and class indices `present`, `difficult`,
        `unknown` (n,) int64.
    """
    import tensorflow as tf

    indices = tf.io.RaggedFeature(tf.int64)
    features = tf.io.parse_single_example(
        record,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/id": tf.io.FixedLenFeature([], tf.string),
            "image/orientation": tf.io.FixedLenFeature([], tf.int64),
            "label/present": indices,
            "label/difficult": indices,
            "label/unknown": indices,
        },
    )
    return {name.split("/")[1]: value for name, value in features.items()}


def parse_sample(record: bytes) -> tuple[Sample, Picture]:
    """What `serialize_record` was given, from its bytes."""
    import tensorflow as tf

    feature = tf.train.Example.FromString(record).features.feature

    def ints(name: str) -> tuple[int, ...]:
        return tuple(feature[name].int64_list.value)

    (encoded,) = feature["image/encoded"].bytes_list.value
    (record_id,) = feature["image/id"].bytes_list.value
    (height,), (width,), (orientation,) = (
        ints(f"image/{name}") for name in ("height", "width", "orientation")
    )
    edges = feature["object/box"].float_list.value
    boxes = tuple((edges[i], edges[i + 1], edges[i + 2], edges[i + 3]) for i in range(0, len(edges), 4))
    sample = Sample(
        id=record_id.decode(),
        image=encoded,
        present=ints("label/present"),
        difficult=ints("label/difficult"),
        unknown=ints("label/unknown"),
        boxes=boxes,
        box_labels=ints("object/label"),
    )
    return sample, Picture(encoded, height, width, orientation)


# --- Shards
# Which shard a picture lies in, and where, follows from its id and the number of shards alone. So one process,
# many, or a cluster write the same bytes; and pictures lie in an order that has nothing to do with classes.


def sort_key(sample_id: str) -> bytes:
    """Pictures are sorted by this within a split: 8 bytes, uniformly distributed."""
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()


def shard_of(sample_id: str, num_shards: int) -> int:
    """The shard that a picture lies in: the order of `sort_key`, cut into equal ranges."""
    return int.from_bytes(sort_key(sample_id), "big") * num_shards >> 64


def count_shards(encoded_bytes: int) -> int:
    """How many shards a split gets whose original files have so many bytes together."""
    return max(1, round(encoded_bytes / SHARD_BYTES))


def shard_name(split: str, shard: int, num_shards: int) -> str:
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a prepared set, as the manifest knows it."""

    name: str
    examples: int
    bytes: int
    sha256: str


def write_shard(path: Path, records: Iterable[bytes]) -> Shard:
    """Write serialized records, in the order given, into a file that is not there before it is whole."""
    import tensorflow as tf

    examples = 0
    try:
        with written_whole(path) as partial:
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for record in records:
                    writer.write(record)
                    examples += 1
            return Shard(path.name, examples, partial.stat().st_size, file_sha256(partial))
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


# --- Manifest


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared set.

    Attributes:
        folder: where its shards lie.
        examples: pictures.
        present, difficult, unknown: pictures per class, `difficult` and `unknown` as in `Sample`.
        shards: in order.
        skipped: the pictures left out, and why.
    """

    folder: Path
    examples: int
    present: tuple[int, ...]
    difficult: tuple[int, ...]
    unknown: tuple[int, ...]
    shards: tuple[Shard, ...]
    skipped: tuple[Skip, ...]

    @property
    def files(self) -> list[Path]:
        return [self.folder / shard.name for shard in self.shards]


class Part(NamedTuple):
    """Some neighbouring records of a shard: `limit` from number `start` on, or all behind it (-1)."""

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

    Pictures lie in their shards in random order, so neighbours are a random sample; where they begin is drawn.
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
    """What `dataset.json` says: a prepared set's classes, provenance and splits."""

    name: str
    classes: tuple[str, ...]
    source: str
    licence: str
    splits: dict[str, Split]


def load_manifest(data_dir: Path, name: str, check_files: bool = True) -> Manifest:
    """Read the manifest of the prepared set `<data_dir>/<name>`.

    Args:
        data_dir: where prepared sets lie.
        name: of the set.
        check_files: see that every shard is there and has its size. `--verify` reads their bytes too.

    Raises:
        FileNotFoundError: the set was never built, its build did not finish, or a shard is gone.
        ValueError: it is of another schema version, is damaged, or a shard is of another size.
    """
    folder = Path(data_dir) / name
    path = folder / MANIFEST
    if not path.is_file():
        state = "holds an unfinished build" if folder.is_dir() else "is not there"
        raise FileNotFoundError(
            f"The prepared set {folder} {state}. Build it: python -m pipelines.build --dataset {name}"
            f" --data-dir {data_dir} (and --source DIR, the folder of the original files, but for digits)."
        )
    rebuild = f"Build it anew: python -m pipelines.build --dataset {name} --data-dir {data_dir} --overwrite."
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). {rebuild}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} is of schema version {version}; this program reads version {SCHEMA_VERSION}. {rebuild}"
        )
    if content.pop("checksum", None) != _checksum(content):
        raise ValueError(f"{path} is damaged: its checksum is not that of what it says. {rebuild}")
    try:
        manifest = _from_json(content, folder)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged (at {error}). {rebuild}") from error
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
    """Write `dataset.json` atomically: the moment from which on the set exists."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": manifest.name,
        "classes": manifest.classes,
        "source": manifest.source,
        "licence": manifest.licence,
        "splits": {
            name: {
                "examples": split.examples,
                "present": split.present,
                "difficult": split.difficult,
                "unknown": split.unknown,
                "shards": [dataclasses.asdict(shard) for shard in split.shards],
                "skipped": [dataclasses.asdict(skip) for skip in split.skipped],
            }
            for name, split in manifest.splits.items()
        },
    }
    content["checksum"] = _checksum(content)
    write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _from_json(content: dict[str, Any], folder: Path) -> Manifest:
    splits = {
        name: Split(
            folder=folder,
            examples=split["examples"],
            present=tuple(split["present"]),
            difficult=tuple(split["difficult"]),
            unknown=tuple(split["unknown"]),
            shards=tuple(Shard(**shard) for shard in split["shards"]),
            skipped=tuple(Skip(**skip) for skip in split["skipped"]),
        )
        for name, split in content["splits"].items()
    }
    return Manifest(
        name=content["name"],
        classes=tuple(content["classes"]),
        source=content["source"],
        licence=content["licence"],
        splits=splits,
    )
