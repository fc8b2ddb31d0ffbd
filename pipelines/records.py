"""The record schema, written and parsed side by side, and the shards that records lie in.

A prepared set is a folder of shards, `<split>-00000-of-000NN.tfrecord`, and their manifest. Nothing here loads
TensorFlow before a record is written or parsed.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.files import file_sha256, written_whole
from pipelines.manifest import Shard
from pipelines.pictures import Picture
from pipelines.samples import Sample

if TYPE_CHECKING:
    import tensorflow as tf

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


def record_lengths(path: Path) -> Iterator[int]:
    """The bytes of each record of a shard, in order, without reading them; up to the first that can't be.

    A TFRecord file holds, for each record, its length in 8 bytes, their checksum in 4, the record, its checksum in 4.
    """
    left = path.stat().st_size
    with path.open("rb", buffering=0) as file:  # what lies between is not wanted
        while left >= 16:
            length = int.from_bytes(file.read(8), "little")
            left -= length + 16
            if left < 0:
                return
            yield length
            file.seek(length + 8, os.SEEK_CUR)
