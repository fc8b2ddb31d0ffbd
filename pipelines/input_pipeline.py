"""Shards of records in, batches of pictures and labels out.

An element is `{"image": (B, S, S, 3) float32 in [0, 255], "labels": (B, C) float32 in {0, 1},
"weights": (B, C) float32 in {0, 1}, "id": (B,) string}` for B pictures of side S and C classes. A label of
weight 0 takes no part in loss or metrics.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from pipelines import records
from pipelines.augment import Policy, make_augmentation, picture_seed
from pipelines.decode import decoder
from pipelines.manifest import Part
from pipelines.samples import Sample

# What a class counts as that a picture shows only as "difficult" objects (VOC): a positive, a label of weight 0, or
# a negative.
Difficult = Literal["positive", "ignore", "negative"]
DIFFICULT = ("positive", "ignore", "negative")

OPEN_FILES = 16  # shards read at the same time in training, so that each batch mixes many of them
READ_BYTES = 256 * 1024  # read from each of them at a time
# How many whole batches wait for the model. Not AUTOTUNE: in a long epoch that grows to hundreds of batches, up to
# half of the machine's memory.
PREFETCH_BATCHES = 4
# The shuffle buffer holds records, not pixels. 2,048 records of COCO, 160 kB each, take about 330 MB; with a phone's
# pictures, 5 MB each, they would take 10 GB. So it holds this many records or this many MB, whichever is less.
SHUFFLE_RECORDS = 2048
SHUFFLE_MEGABYTES = 512

ImageBatch = dict[str, tf.Tensor]


def make_train_dataset(
    files: Sequence[Path | Part],
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    epoch: int,
    seed: int = 0,
    skip_batches: int = 0,
    augment: Policy = "paper",
    difficult: Difficult = "positive",
    shard: tuple[int, int] = (0, 1),
    shuffle_records: int = SHUFFLE_RECORDS,
    shuffle_megabytes: int = SHUFFLE_MEGABYTES,
) -> tf.data.Dataset:
    """One epoch of training: every picture at most once, in this epoch's own order, without a partial batch.

    The order is a function of (seed, epoch), and a picture's augmentation is one of (seed, epoch, its id). So an
    epoch that is resumed with `skip_batches` continues with exactly the batches that it would have had. Each epoch
    needs its own dataset; the same one would give the same pictures, augmented in the same way, in the same order:

        for epoch in range(epochs):
            model.fit(make_train_dataset(files, ..., epoch=epoch), initial_epoch=epoch, epochs=epoch + 1)

    Args:
        files: shards of one split, or parts of them (`manifest.hold_out`).
        num_classes: C.
        image_size: S in px.
        batch_size: B of this worker.
        epoch: counted from 0.
        seed: decides order and augmentation, with `epoch`.
        skip_batches: how many batches to leave out at the beginning; they are read but not decoded.
        augment: a policy of `make_augmentation`: `paper`, `none`, ...
        difficult: what a difficult class counts as.
        shard: (index, count) of this worker. The workers' batches k together hold the pictures that one
            worker with a batch `count` times as large would have in its batch k.
        shuffle_records: how many records the shuffle buffer holds at most; the order depends on it.
        shuffle_megabytes: how many MB of records (10^6 bytes) it holds at most.

    Returns:
        A dataset that can be iterated once.
    """
    _check(files, difficult, shard)
    buffered = _count_buffered(files, shuffle_records, shuffle_megabytes)
    dataset = _read_shuffled(files, seed, epoch, buffered)
    # Each worker takes its share here, after the shuffle, so that all agree on the order. All get equally many
    # records; otherwise a worker with one step more would wait forever for the others.
    index, count = shard
    if count > 1:
        dataset = dataset.batch(count, drop_remainder=True).map(lambda records_of_all: records_of_all[index])
    # Records are still compressed bytes here, so skipping them costs reading but no decoding.
    dataset = dataset.skip(skip_batches * batch_size)

    change = make_augmentation(augment)

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes long
    def prepare(record: tf.Tensor) -> ImageBatch:
        example = _parse(record, num_classes, image_size, difficult)
        example["image"] = change(example["image"], picture_seed(seed, epoch, example["id"]))
        return example

    # Deterministic, although pictures decode at different speeds, because the order is promised.
    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    # Prefetching comes last, so that whole batches wait for the model.
    return _OneEpoch(dataset.prefetch(PREFETCH_BATCHES), epoch)


def make_eval_dataset(
    files: Sequence[Path | Part],
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    difficult: Difficult = "positive",
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Every picture exactly once, in the shards' order; the last batch may be smaller.

    Arguments as for `make_train_dataset`. With `difficult="ignore"` a difficult class has label 1, weight 0.
    """
    _check(files, difficult, shard)
    index, count = shard
    dataset = read_records(files).shard(count, index)

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes long
    def prepare(record: tf.Tensor) -> ImageBatch:
        return _parse(record, num_classes, image_size, difficult)

    dataset = dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(PREFETCH_BATCHES)


def read_records(files: Sequence[Path | Part]) -> tf.data.Dataset:
    """Every record, () string, in the shards' order."""
    return _parts(files).flat_map(_read_part)


def read_samples(files: Sequence[Path | Part]) -> Iterator[tuple[Sample, records.Picture]]:
    """The sample and the picture that each record was made of, in the shards' order."""
    for record in read_records(files).as_numpy_iterator():
        yield records.parse_sample(record)


def read_boxes(files: Sequence[Path | Part]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The objects' boxes: id -> (boxes (n, 4) float32 ymin xmin ymax xmax as fractions, labels (n,) int64)."""
    found = {}
    for sample, _ in read_samples(files):
        boxes = np.array(sample.boxes, np.float32).reshape(-1, 4)
        found[sample.id] = (boxes, np.array(sample.box_labels, np.int64))
    return found


class _OneEpoch(tf.data.Dataset):
    """A dataset that refuses to be iterated twice, as Keras' `fit(dataset, epochs=2)` or a loop would do."""

    def __init__(self, dataset: tf.data.Dataset, epoch: int) -> None:
        self._dataset, self._epoch, self._is_spent = dataset, epoch, False
        super().__init__(dataset._variant_tensor)

    def __iter__(self) -> Iterator[ImageBatch]:
        if self._is_spent:
            raise ValueError(
                f"This dataset is epoch {self._epoch} alone: again it would give the same batches. Make one for each"
                " epoch: make_train_dataset(..., epoch=...)."
            )
        self._is_spent = True
        return iter(self._dataset)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> dict[str, tf.TensorSpec]:
        return self._dataset.element_spec


def _check(files: Sequence[Path | Part], difficult: str, shard: tuple[int, int]) -> None:
    if not files:
        raise ValueError("`files` must name at least one shard. Received: none")
    if difficult not in DIFFICULT:
        raise ValueError(f"`difficult` must be one of {', '.join(DIFFICULT)}. Received: {difficult!r}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"`shard` must be (index, count) with 0 <= index < count. Received: {shard}")


def _parts(files: Sequence[Path | Part]) -> tf.data.Dataset:
    """(path, start, limit) of each file, as in `Part`."""
    parts = [file if isinstance(file, Part) else Part(file) for file in files]
    return tf.data.Dataset.from_tensor_slices(
        ([str(part.path) for part in parts], [part.start for part in parts], [part.limit for part in parts])
    )


def _read_part(path: tf.Tensor, start: tf.Tensor, limit: tf.Tensor) -> tf.data.Dataset:
    start, limit = tf.cast(start, tf.int64), tf.cast(limit, tf.int64)
    return tf.data.TFRecordDataset(path, buffer_size=READ_BYTES).skip(start).take(limit)


def _count_buffered(files: Sequence[Path | Part], most_records: int, most_megabytes: int) -> int:
    """How many records the shuffle buffer holds: as many as fit even if they are the largest of all records.

    A function of the files, so that all workers agree on it.
    """
    for name, most in (("shuffle_records", most_records), ("shuffle_megabytes", most_megabytes)):
        if most < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {most}")
    paths = dict.fromkeys(file.path if isinstance(file, Part) else file for file in files)
    largest = [_largest_records(path, path.stat().st_mtime_ns, most_records) for path in paths]
    sums = np.cumsum(np.sort(np.concatenate(largest))[::-1][:most_records])
    count = int(np.searchsorted(sums, most_megabytes * 1e6, side="right"))
    return most_records if count == len(sums) else max(1, count)


@functools.lru_cache(maxsize=100_000)  # each epoch asks again
def _largest_records(path: Path, changed: int, most: int) -> np.ndarray:
    """The sizes in bytes of a shard's largest records, at most `most` of them: (n,) int64."""
    return np.sort(np.fromiter(records.record_lengths(path), np.int64))[::-1][:most]


def _read_shuffled(
    files: Sequence[Path | Part], seed: int, epoch: int, shuffle_records: int
) -> tf.data.Dataset:
    """Records in an order that depends on (seed, epoch) and on nothing else."""
    # First shuffle the files, which costs nothing and mixes most: the build dealt the pictures to them at random.
    order = np.random.default_rng([seed, epoch]).permutation(len(files))
    dataset = _parts([files[i] for i in order]).interleave(
        _read_part,
        cycle_length=OPEN_FILES,
        block_length=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    buffer_seed = int(np.random.default_rng([seed, epoch, 1]).integers(1, 2**31))

    # Then shuffle the records, before they are decoded: a buffer of pixels would be ten times as large.
    def shuffle(_: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes its seed with TensorFlow's global seed, which must not change the order. Inside a function,
        # `set_seed` sets the seed of that function alone.
        tf.random.set_seed(0)
        return dataset.shuffle(shuffle_records, seed=buffer_seed, reshuffle_each_iteration=False)

    return tf.data.Dataset.range(1).flat_map(shuffle)


def _parse(record: tf.Tensor, num_classes: int, image_size: int, difficult: Difficult) -> ImageBatch:
    fields = records.parse_record(record)

    def marked(
        name: str,
    ) -> tf.Tensor:  # (n,) class indices -> (C,) 0 or 1, without the n x C values that `one_hot` makes
        indices = fields[name]
        ones = tf.ones(tf.shape(indices))
        return tf.minimum(tf.scatter_nd(indices[:, None], ones, tf.constant([num_classes], tf.int64)), 1)

    labels, weights = marked("present"), 1 - marked("unknown")
    if difficult == "ignore":
        weights *= 1 - marked("difficult")
    elif difficult == "negative":
        labels *= 1 - marked("difficult")
    return {
        "image": decoder(image_size)(fields["encoded"], fields["orientation"]),
        "labels": labels,
        "weights": weights,
        "id": fields["id"],
    }
