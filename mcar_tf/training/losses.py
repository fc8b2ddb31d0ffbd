"""Labels and the logits of one stream in, one number out."""

import tensorflow as tf


def binary_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted sum over images and classes, divided by batch x classes: (9), with the authors' mean.

    Args:
        labels: (B, C) in {0, 1}.
        logits: (B, C), before the sigmoid.
        weights: (B, C); 0 leaves a label out of the sum, the divisor stays.

    Returns:
        Scalar float32.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
    return tf.reduce_mean(weights * entropy)
