"""Choose, from global logits, the classes and the images that are worth a second look.

Letters: B images, C classes, N regions.
"""

import math

import tensorflow as tf


def in_band(global_logits: tf.Tensor, band: tuple[float, float]) -> tf.Tensor:
    """Whether each class's global probability lies in the band, ends included; of the shape of the logits."""
    probs = tf.sigmoid(global_logits)
    return (probs >= band[0]) & (probs <= band[1])


def doubt_of(global_logits: tf.Tensor) -> tf.Tensor:
    """The entropy of the global probabilities, summed over the classes: (B, C) -> (B,), in bits, from 0 to C."""
    entropy = tf.math.softplus(global_logits) - global_logits * tf.sigmoid(global_logits)
    return tf.reduce_sum(entropy, axis=-1) / math.log(2.0)


def worth_a_look(
    global_logits: tf.Tensor, box_classes: tf.Tensor, band: tuple[float, float] | None, doubt: float
) -> tf.Tensor:
    """Which regions (B, N) are looked at: their class is in the band, and their image leaves at least this doubt."""
    of_images = doubt_of(global_logits) >= doubt
    if band is None:
        return tf.repeat(of_images[:, tf.newaxis], box_classes.shape[1], axis=1)
    of_classes = in_band(tf.gather(global_logits, box_classes, batch_dims=1), band)
    return of_classes & of_images[:, tf.newaxis]


def choose_in_band(
    ranked: tf.Tensor, global_logits: tf.Tensor, band: tuple[float, float], top_n: int
) -> tf.Tensor:
    """N classes (B, N) int32: those in the band before all others, and by `ranked` (B, C), largest first, in each."""
    classes = ranked.shape[-1]
    order = tf.math.top_k(ranked, classes).indices
    first = in_band(tf.gather(global_logits, order, batch_dims=1), band)
    places = tf.math.top_k(tf.where(first, classes, 0) - tf.range(classes), top_n).indices
    return tf.gather(order, places, batch_dims=1)
