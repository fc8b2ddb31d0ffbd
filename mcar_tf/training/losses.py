"""Losses: each computes one number from the labels and the logits of one stream."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

MOST_WEIGHT = 20.0  # largest weight of a positive: a class of three pictures must not outweigh all others


@keras.saving.register_keras_serializable("mcar_tf")
def binary_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted sum over images and classes, divided by batch x classes: equation (9), with the authors' mean.

    Args:
        labels: (B, C) in {0, 1}.
        logits: (B, C), before the sigmoid.
        weights: (B, C); 0 leaves a label out of the sum, but the divisor stays the same.

    Returns:
        Scalar float32.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
    return tf.reduce_mean(weights * entropy)


@keras.saving.register_keras_serializable("mcar_tf")
def asymmetric(
    labels: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> tf.Tensor:
    """Asymmetric loss (ICCV 2021): cross-entropy in which easy labels count less, easy negatives least of all.

    For each label y with probability p = sigmoid(logit), and p_m = max(p - margin, 0)::

        y * (1 - p)^gamma_positive * -log(p)  +  (1 - y) * p_m^gamma_negative * -log(1 - p_m)

    The gradient treats the two powers as constants, as in the authors' training code (Alibaba-MIIL/ASL,
    `disable_torch_grad_focal_loss=True`), which gave their results; equation (8) of the paper differentiates them
    too. With both gammas and the margin 0 this is `binary_cross_entropy`.

    Args:
        labels: (B, C) in [0, 1].
        logits: (B, C), before the sigmoid.
        weights: (B, C); 0 leaves a label out of the sum, but the divisor stays the same.
        gamma_positive: how strongly to focus on hard positives, 0 or more.
        gamma_negative: how strongly to focus on hard negatives, 0 or more.
        margin: negatives below this probability cost nothing, in [0, 1).

    Returns:
        Scalar float32: the weighted sum, divided by batch x classes.

    Raises:
        ValueError: a gamma or the margin is outside its range.

    Source: T. Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations (4) to (7).
    """
    for name, gamma in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
        if gamma < 0.0:
            raise ValueError(f"`{name}` must not be negative. Received: {gamma}")
    if not 0.0 <= margin < 1.0:
        raise ValueError(f"`margin` must lie in [0, 1). Received: {margin}")
    logits = tf.cast(logits, tf.float32)
    probs = tf.sigmoid(logits)
    of_positive = tf.nn.softplus(-logits)  # -log(p)
    if margin:
        of_negative = -tf.math.log(tf.minimum(tf.sigmoid(-logits) + margin, 1.0))
    else:
        of_negative = tf.nn.softplus(logits)
    hard_positive = tf.stop_gradient(tf.pow(1.0 - probs, gamma_positive))
    hard_negative = tf.stop_gradient(tf.pow(tf.maximum(probs - margin, 0.0), gamma_negative))
    entropy = labels * hard_positive * of_positive + (1.0 - labels) * hard_negative * of_negative
    return tf.reduce_mean(weights * entropy)


def weigh_positives(
    loss: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], positive_weights: np.ndarray
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """A loss in which a positive of class c counts `positive_weights[c]` times; negatives count as before.

    Args:
        loss: a function of labels, logits and weights, such as `binary_cross_entropy`.
        positive_weights: (C,).
    """
    factors = tf.constant(positive_weights, tf.float32)

    def weighed(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return loss(labels, logits, weights * (1.0 + labels * (factors - 1.0)))

    return weighed


def balanced_weights(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Weights of positives that balance each class: absent / present, limited to [1, MOST_WEIGHT].

    Args:
        present: (C,), number of pictures known to show each class.
        absent: (C,), number of pictures known not to show it.

    Returns:
        (C,) float32; 1 for a class that no picture shows.
    """
    ratio = np.where(present > 0, absent / np.maximum(present, 1), 1.0)
    return np.clip(ratio, 1.0, MOST_WEIGHT).astype(np.float32)
