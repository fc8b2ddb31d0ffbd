"""Choose, from global logits and a look band, the classes that are worth a second look.

Letters: B images, C classes, N regions.
"""

import tensorflow as tf


def in_band(global_logits: tf.Tensor, band: tuple[float, float]) -> tf.Tensor:
    """Whether each class's global probability lies in the band, ends included; of the shape of the logits."""
    probs = tf.sigmoid(global_logits)
    return (probs >= band[0]) & (probs <= band[1])


def choose_in_band(
    ranked: tf.Tensor, global_logits: tf.Tensor, band: tuple[float, float], top_n: int
) -> tf.Tensor:
    """N classes (B, N) int32: those in the band before all others, and by `ranked` (B, C), largest first, in each."""
    classes = ranked.shape[-1]
    order = tf.math.top_k(ranked, classes).indices
    first = in_band(tf.gather(global_logits, order, batch_dims=1), band)
    places = tf.math.top_k(tf.where(first, classes, 0) - tf.range(classes), top_n).indices
    return tf.gather(order, places, batch_dims=1)
