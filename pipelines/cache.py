"""Cache the pictures of shards on disk at one size: for slow processors and fast disks."""

import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from pipelines import records
from pipelines.decode import decoder
from pipelines.manifest import Part
from pipelines.pictures import Picture


def cache_resized(files: Sequence[Path | Part], image_size: int, cache_dir: Path) -> list[Path | Part]:
    """Write each shard's pictures, upright and resized, as PNG without compression; keep caches that exist.

    The result goes into `make_train_dataset` in place of `files`, at the same `image_size`. Pixels are rounded to
    whole levels of 255, otherwise nothing changes. A picture with sides of S px takes 3·S² bytes: 197 kB at 256 px,
    602 kB at 448 px.

    Args:
        files: shards, or parts of shards, whose shards are cached as a whole.
        image_size: side in px.
        cache_dir: may hold the caches of many sets and sizes.

    Returns:
        The cached `files`, in the same order.
    """
    cached = {}
    for path in dict.fromkeys(file.path if isinstance(file, Part) else file for file in files):
        status = path.stat()
        # The name tells which file this is a cache of, and which state of that file.
        state = hashlib.sha256(
            f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()
        ).hexdigest()[:16]
        cached[path] = cache_dir / f"{path.parent.name}-{path.stem}-{image_size}px-{state}.tfrecord"
        if not cached[path].exists():
            cache_dir.mkdir(parents=True, exist_ok=True)
            records.write_shard(cached[path], _resized_records(path, image_size))
    return [
        file._replace(path=cached[file.path]) if isinstance(file, Part) else cached[file] for file in files
    ]


def _resized_records(path: Path, image_size: int) -> Iterator[bytes]:
    from tqdm import tqdm

    def resize(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fields = records.parse_record(record)
        pixels = decoder(image_size)(fields["encoded"], fields["orientation"])
        return record, tf.io.encode_png(tf.cast(tf.round(pixels), tf.uint8), compression=0)

    dataset = tf.data.TFRecordDataset(str(path)).map(resize, num_parallel_calls=tf.data.AUTOTUNE)
    for record, encoded in tqdm(
        dataset.prefetch(64).as_numpy_iterator(),
        desc=f"caching {path.name}",
        unit=" pictures",
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        file=sys.stderr,
    ):
        sample, _ = records.parse_sample(record)
        picture = Picture(encoded, image_size, image_size, orientation=1)
        yield records.serialize_record(dataclasses.replace(sample, image=encoded), picture)
