"""Widen and jitter boxes; the results stay inside the image.

Boxes are (..., 4) float32, ymin xmin ymax xmax as fractions of the image.
"""

from collections.abc import Sequence

import tensorflow as tf

MAX_JITTER = 0.5  # a larger one could move a box of the whole image out of the image


def widen_boxes(boxes: tf.Tensor, height: float | tf.Tensor, width: float | tf.Tensor) -> tf.Tensor:
    """Widen boxes about their centre to at least this height and width (fractions of the image), kept inside it."""
    least = tf.minimum(tf.cast(tf.stack([height, width]), tf.float32), 1.0)
    start, stop = boxes[..., :2], boxes[..., 2:]
    side = tf.maximum(stop - start, least)
    widened = tf.clip_by_value(0.5 * (start + stop - side), 0.0, 1.0 - side)
    is_small = stop - start < least
    widened = tf.concat([widened, widened + side], axis=-1)
    return tf.where(tf.concat([is_small, is_small], axis=-1), widened, boxes)


def jitter_boxes(boxes: tf.Tensor, share: float, seed: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Shift and scale boxes at random, independently in height and width.

    A side is multiplied by a factor in [1 - share, 1 + share], and its centre moves by up to `share` of the side.
    Whatever then lies outside the image is cut off.

    Args:
        boxes: (B, N, 4); under a strategy one replica's part, which gets the random numbers that it would get as a
            part of the whole batch on one device.
        share: in [0, `MAX_JITTER`].
        seed: two integers, which determine the random numbers.
    """
    context = tf.distribute.get_replica_context()
    batch, regions, _ = tf.unstack(tf.shape(boxes))
    shape = [context.num_replicas_in_sync, batch, regions, 4]
    drawn = tf.random.stateless_uniform(shape, seed, -share, share)[context.replica_id_in_sync_group]
    side = boxes[..., 2:] - boxes[..., :2]
    centre = 0.5 * (boxes[..., :2] + boxes[..., 2:]) + drawn[..., :2] * side
    half = 0.5 * side * (1.0 + drawn[..., 2:])
    return tf.clip_by_value(tf.concat([centre - half, centre + half], axis=-1), 0.0, 1.0)


def check_jitter(box_jitter: float) -> None:
    """Raise `ValueError` for a jitter outside its range."""
    if not 0.0 <= box_jitter <= MAX_JITTER:
        raise ValueError(f"`box_jitter` must lie in [0, {MAX_JITTER}]. Received: {box_jitter}")
