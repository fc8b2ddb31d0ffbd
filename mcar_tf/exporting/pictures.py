"""Read from a split the pictures that a form is compared on, and those on which int8 finds its ranges."""

import itertools
from collections.abc import Iterator

import numpy as np

from mcar_tf.exporting.forms import Array, PictureBatch
from mcar_tf.models.mcar import MCAR
from pipelines.input_pipeline import make_eval_dataset, read_samples
from pipelines.manifest import Portion, Split

BATCH_SIZE = 16


def picture_batches(split: Split | Portion, model: MCAR, pictures: int) -> Iterator[PictureBatch]:
    """The first pictures of a split, in the model's input format, with their files' bytes and their labels.

    Yields:
        Up to `BATCH_SIZE` pictures at a time, in all `pictures`, or fewer if the split has fewer.
    """
    decoded = make_eval_dataset(
        split.files,
        num_classes=model.num_classes,
        image_size=model.image_size,
        batch_size=BATCH_SIZE,
        difficult="ignore",
    )
    encoded = (picture.encoded for _, picture in read_samples(split.files))
    left = min(pictures, split.examples)
    for batch in decoded.take(count_batches(split, pictures)).as_numpy_iterator():
        size = min(left, len(batch["image"]))
        left -= size
        files = np.array(list(itertools.islice(encoded, size)), object)
        yield {"encoded": files} | {name: batch[name][:size] for name in ("image", "labels", "weights")}


def count_batches(split: Split | Portion, pictures: int) -> int:
    """How many batches `picture_batches` yields."""
    return -(-min(pictures, split.examples) // BATCH_SIZE)


def calibration_pictures(split: Split | Portion, model: MCAR, pictures: int) -> Iterator[Array]:
    """The first pictures of a split, (S, S, 3) each. Records are in random order, so these are as good as any."""
    for batch in picture_batches(split, model, pictures):
        yield from batch["image"]
