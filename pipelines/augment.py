"""One picture in, one picture out: augmentations as pure functions of (seed, epoch, picture).

Letters: S side in px. Pictures are (S, S, 3) float32 in [0, 255].
"""

from typing import Literal

import tensorflow as tf

# paper: flip and colour jitter; color: the jitter alone, for what must not be mirrored, as digits and text.
Policy = Literal["paper", "color", "none"]
POLICIES = ("paper", "color", "none")

JITTER = 0.3  # brightness, contrast and saturation each by a factor in [1 - JITTER, 1 + JITTER]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale (there rounded to 0.2989)


def picture_seed(seed: int, epoch: int, picture_id: tf.Tensor) -> tf.Tensor:
    """The (2,) int64 seed of one picture's random numbers in one epoch.

    A picture counts by a hash of its id, not by its place: neither the order, nor the batch size, nor how
    many workers share the set changes how it is augmented.
    """
    index = tf.strings.to_hash_bucket_fast(picture_id, 2**31 - 1)
    return tf.stack([tf.constant(seed * 1_000_003 + epoch, tf.int64), index])


def augment(image: tf.Tensor, seed: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Augment one picture. image: (S, S, 3) float32; seed: (2,) integer, of `picture_seed`."""
    if policy == "none":
        return image
    if policy not in POLICIES:
        raise ValueError(f"`augment` must be one of {', '.join(POLICIES)}. Received: {policy!r}")
    draws = tf.random.stateless_uniform((5,), seed)
    if policy == "paper":
        image = tf.cond(draws[0] < 0.5, lambda: image[:, ::-1], lambda: image)
    return _jitter_colors(image, factors=1 - JITTER + 2 * JITTER * draws[1:4], order=draws[4])


def _jitter_colors(image: tf.Tensor, factors: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast and saturation by `factors` (3,), in one of their six orders.

    Each is torchvision's `adjust_*`: a blend with black, with the picture's mean grey, with its own
    greyscale, clipped to the range of a picture after each step. order: () float in [0, 1).
    """

    def brightness(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, tf.zeros(()), factors[0])

    def contrast(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, tf.reduce_mean(_greyscale(x)), factors[1])

    def saturation(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, _greyscale(x), factors[2])

    orders = [
        lambda x=image: saturation(contrast(brightness(x))),
        lambda x=image: contrast(saturation(brightness(x))),
        lambda x=image: saturation(brightness(contrast(x))),
        lambda x=image: brightness(saturation(contrast(x))),
        lambda x=image: contrast(brightness(saturation(x))),
        lambda x=image: brightness(contrast(saturation(x))),
    ]
    return tf.switch_case(tf.cast(order * 6, tf.int32), orders)


def _blend(image: tf.Tensor, other: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(factor * image + (1 - factor) * other, 0.0, 255.0)


def _greyscale(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(image * tf.constant(LUMA), axis=-1, keepdims=True)
