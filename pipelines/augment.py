"""Augmentations of one picture, as pure functions of (seed, epoch, picture).

Letters: S side in px. Pictures are (S, S, 3) float32 in [0, 255].

Measured in milliseconds of one CPU core per picture, at 256 / 448 px: TensorFlow's ops one by one take 3.3 / 8.3, and
5.4 / 15.6 on a whole batch, which no longer fits the cache; compiled by XLA, they take 0.7 / 1.1 on a picture and
0.9 / 2.2 on a batch. (Decoding and resizing a picture of 640x480 takes 3.7 / 6.3.) So augmentation runs compiled,
picture by picture, in the pipeline's own threads.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import tensorflow as tf

Policy = Literal[
    "none",
    "flip",
    "color",
    "paper",
    "crop",
    "crop_cutout",
    "cutout",
    "gridmask",
    "randaugment",
    "randaugment_cutout",
]
UNSEEDED = ("gridmask",)  # keras-cv's, which draw random numbers of their own: no two runs are the same
Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # a picture and its seed -> a picture

CROP_AREA = (0.4, 1.0)  # share of the picture
CROP_ASPECT = (3 / 4, 4 / 3)  # width over height of a crop, of a square picture
JITTER = 0.3  # brightness, contrast and saturation each by a factor in [1 - JITTER, 1 + JITTER]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns RGB into grey


def make_augmentation(policy: Policy) -> Change:
    """The function of a policy: a picture (S, S, 3) float32 and its `picture_seed` in, a picture out.

    Args:
        policy: `none`; `flip` mirrors every other picture; `color` jitters brightness, contrast and saturation
            (for what must not be mirrored, such as digits and text); `paper` does both; `crop` cuts out a part of the
            picture, enlarges it and does both; `cutout` does both and paints a rectangle over the picture;
            `crop_cutout` is `crop` and then the rectangle; `gridmask` does both and paints a grid of squares over it,
            which the seed does not control; `randaugment` mirrors and applies two operations of Keras' RandAugment;
            `randaugment_cutout` then also paints a rectangle over the picture.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"`augment` must be one of {', '.join(get_args(Policy))}. Received: {policy!r}")
    if policy == "none":
        return lambda image, seed: image
    cropped = policy.startswith("crop")
    mirrored, colored = policy != "color", not policy.startswith(("flip", "randaugment"))
    further: Sequence[Change] = ()
    if policy not in ("flip", "color", "paper", "crop"):
        from pipelines import policies  # loads Keras

        makers = {
            "cutout": (policies.make_cutout,),
            "crop_cutout": (policies.make_cutout,),
            "gridmask": (policies.make_grid_mask,),
            "randaugment": (policies.make_rand_augment,),
            "randaugment_cutout": (policies.make_rand_augment, policies.make_cutout),
        }
        further = [make() for make in makers[policy]]

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if cropped:
            image = crop_at_random(image, tf.random.experimental.stateless_fold_in(seed, 1))
        image = _flip_and_jitter(image, tf.random.stateless_uniform((5,), seed), mirrored, colored)
        for change_further in further:
            image = change_further(image, seed)
            seed = tf.random.experimental.stateless_fold_in(seed, 0)  # the next one draws other numbers
        return image

    return change


def picture_seed(seed: int, epoch: int, picture_id: tf.Tensor) -> tf.Tensor:
    """The (2,) int64 seed of one picture's random numbers in one epoch.

    It depends on a hash of the picture's id, not on its place, so neither the order, nor the batch size, nor the
    number of workers changes how a picture is augmented.
    """
    index = tf.strings.to_hash_bucket_fast(picture_id, 2**62)
    return tf.random.experimental.stateless_fold_in(tf.stack([tf.constant(seed, tf.int64), index]), epoch)


def crop_at_random(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A part of the picture, of an area in `CROP_AREA` and an aspect in `CROP_ASPECT`, enlarged to (S, S, 3)."""
    draws = tf.random.stateless_uniform((4,), seed)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * draws[0]
    low, high = (math.log(aspect) for aspect in CROP_ASPECT)
    aspect = tf.exp(low + (high - low) * draws[1])
    sides = tf.minimum(tf.sqrt(tf.stack([area / aspect, area * aspect])), 1.0)
    start = draws[2:] * (1.0 - sides)
    # The op paints black what lies beyond the last pixel, if only by a rounding error.
    box = tf.minimum(tf.concat([start, start + sides], axis=0), 1.0 - 1e-6)
    crop = tf.image.crop_and_resize(image[tf.newaxis], box[tf.newaxis], [0], tf.shape(image)[:2])[0]
    return tf.ensure_shape(crop, image.shape)


# Compiled into two passes over the pixels. Random numbers are passed in: XLA would draw others than TensorFlow.
@tf.function(jit_compile=True, autograph=False)
def _flip_and_jitter(image: tf.Tensor, draws: tf.Tensor, mirrored: bool, colored: bool) -> tf.Tensor:
    """Mirror half of the pictures and change colours, if asked for. draws: (5,) uniform in [0, 1)."""
    if mirrored:
        image = tf.where(draws[0] < 0.5, image[:, ::-1], image)
    if colored:
        factors = 1 + JITTER * (2 * draws[1:4] - 1)
        image = jitter_colors(image, factors, order=tf.cast(draws[4] * 6, tf.int32))
    return image


def jitter_colors(image: tf.Tensor, factors: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast and saturation by `factors` (3,), in one of their six orders (0 to 5).

    Each is torchvision's `adjust_*`: a blend with black, with the picture's mean grey, with its own greyscale,
    clipped to the range of a picture after each step; `ColorJitter` draws their order too.
    """

    def brightness(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, 0.0, factors[0])

    def contrast(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, tf.reduce_mean(_greyscale(x)), factors[1])

    def saturation(x: tf.Tensor) -> tf.Tensor:
        return _blend(x, _greyscale(x), factors[2])

    orders: list[Callable[[], tf.Tensor]] = [
        lambda: saturation(contrast(brightness(image))),
        lambda: contrast(saturation(brightness(image))),
        lambda: saturation(brightness(contrast(image))),
        lambda: brightness(saturation(contrast(image))),
        lambda: contrast(brightness(saturation(image))),
        lambda: brightness(contrast(saturation(image))),
    ]
    return tf.switch_case(order, orders)


def _blend(image: tf.Tensor, other: tf.Tensor | float, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(factor * image + (1 - factor) * other, 0.0, 255.0)


def _greyscale(image: tf.Tensor) -> tf.Tensor:
    red, green, blue = (image[..., channel : channel + 1] for channel in range(3))
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
