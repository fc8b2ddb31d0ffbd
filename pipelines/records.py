"""The schema of records, how they are written and parsed, and the shards that hold them.

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

SHARD_BYTES = 100 * 2**20  # of encoded pictures: large enough to stream from a disk, small enough to spread


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
        "label/difficult": ints(*sample.difficult),  # the present ones that appear only as difficult objects
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
    """Parse from a record's bytes, in graph mode, what training and evaluation need.

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
    """Restore, from a record's bytes, the sample and the picture that `serialize_record` was given."""
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
# A picture's id and the number of shards alone decide which shard it goes into, and where in it. So one process,
# many processes and a cluster write the same bytes, and the order of pictures has nothing to do with their classes.


def sort_key(sample_id: str) -> bytes:
    """The key by which pictures are sorted within a split: 8 bytes, uniformly distributed."""
    return hashlib.blake2b(sample_id.encode(), digest_size=8).digest()


def shard_of(sample_id: str, num_shards: int) -> int:
    """The number of the shard that a picture goes into: the range of `sort_key` is cut into equal parts."""
    return int.from_bytes(sort_key(sample_id), "big") * num_shards >> 64


def count_shards(encoded_bytes: int) -> int:
    """How many shards a split gets, by the total size of its original files in bytes."""
    return max(1, round(encoded_bytes / SHARD_BYTES))


def shard_name(split: str, shard: int, num_shards: int) -> str:
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"


def write_shard(path: Path, records: Iterable[bytes]) -> Shard:
    """Write serialized records, in the given order, into a file that appears only once it is complete."""
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
    """Yield the length in bytes of each record of a shard, in order, without reading the records.

    Stops before the first record that is longer than the rest of the file. A TFRecord file holds, for each record,
    its length in 8 bytes, the checksum of the length in 4, the record, and the record's checksum in 4.
    """
    left = path.stat().st_size
    with path.open("rb", buffering=0) as file:  # unbuffered: the records themselves are skipped
        while left >= 16:
            length = int.from_bytes(file.read(8), "little")
            left -= length + 16
            if left < 0:
                return
            yield length
            file.seek(length + 8, os.SEEK_CUR)
