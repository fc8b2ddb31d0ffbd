"""Read each picture as it is, and as three other programs would have handed it to a model.

A model's answer should hardly depend on which of these variants it gets. Letters: B pictures, S side in px.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipelines import records
from pipelines.decode import decode, decode_and_resize, turn_upright
from pipelines.input_pipeline import read_records
from pipelines.manifest import Part

JPEG_QUALITY = 90


def make_variants_dataset(
    files: Sequence[Path | Part], *, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Every picture once, in the shards' order.

    Args:
        files: shards, or parts of them.
        image_size: side S of the pictures in px.
        batch_size: pictures per batch; the last may have fewer.

    Returns:
        Batches of `as_it_is`, `rounded` (to whole levels), `resized` (by Pillow) and `saved_again` (as a JPEG of
        `JPEG_QUALITY`), each (B, S, S, 3) float32 in [0, 255].
    """

    def prepare(record: tf.Tensor) -> dict[str, tf.Tensor]:
        fields = records.parse_record(record)
        as_it_is = decode_and_resize(fields["encoded"], fields["orientation"], image_size)
        upright = turn_upright(decode(fields["encoded"]), fields["orientation"])
        resized = tf.numpy_function(lambda pixels: _resize_by_pillow(pixels, image_size), [upright], tf.uint8)
        saved_again = tf.io.encode_jpeg(upright, quality=JPEG_QUALITY)
        return {
            "as_it_is": as_it_is,
            "rounded": tf.round(as_it_is),
            "resized": tf.cast(tf.ensure_shape(resized, (image_size, image_size, 3)), tf.float32),
            "saved_again": decode_and_resize(saved_again, tf.constant(1), image_size),
        }

    dataset = read_records(files).map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(1)


def _resize_by_pillow(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
