"""Decode pictures to upright pixels of one size, in the same way in training, evaluation and serving."""

import functools
from collections.abc import Callable

import tensorflow as tf

from pipelines.headers import choose_by_kind, is_keyed_png

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (which skips most of the inverse DCT) only where each side is then
# still this many times the result's. Measured on 152 photographs: the resized pixels then differ by 0.5 levels of 255
# on average (1.1 at worst); with a margin of 1 they would differ by 2 to 3. For comparison, libjpeg's fast DCT,
# TensorFlow's default which we don't use, makes a difference of 0.8, and bicubic instead of bilinear resizing one of
# 1.3 to 2.9.
REDUCED_MARGIN = 3
RATIOS = (1, 2, 4, 8)


def decode_and_resize(encoded: tf.Tensor, orientation: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a JPEG, PNG or WebP, turn it upright, warp it to a square: bilinear with antialiasing, as Pillow does.

    Args:
        encoded: () string, the file's bytes.
        orientation: () integer, EXIF's, 1 to 8; as in a record, or from `pipelines.headers`.
        image_size: side S of the result in px.

    Returns:
        (S, S, 3) float32 in [0, 255].
    """
    pixels = turn_upright(decode(encoded, least_side=REDUCED_MARGIN * image_size), orientation)
    size = (image_size, image_size)
    resized = tf.cond(
        tf.reduce_all(tf.shape(pixels)[:2] == size),  # as in a cache of resized pictures
        lambda: tf.cast(pixels, tf.float32),
        lambda: resize(pixels, image_size),
    )
    return tf.ensure_shape(resized, (*size, 3))


@functools.cache
def decoder(image_size: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """`decode_and_resize` of an int64 orientation as one graph, which a process traces once.

    Eagerly it takes half as long as its operations one by one, and a dataset that maps it is made six times as fast.
    """
    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)]
    return tf.function(
        lambda encoded, orientation: decode_and_resize(encoded, orientation, image_size),
        input_signature=signature,
        autograph=False,
    )


def resize(pixels: tf.Tensor, image_size: int) -> tf.Tensor:
    """`tf.image.resize(pixels, (S, S), antialias=True)` to the bit, in half the time.

    TensorFlow combines rows into one with vectors as long as a row, but columns pixel by pixel, three numbers at a
    time. So here the picture is transposed in between, and both sides are resized as rows.

    Args:
        pixels: (H, W, 3) of any type.
        image_size: side S of the result in px.

    Returns:
        (S, S, 3) float32.
    """
    for _ in range(2):
        height, width, channels = tf.unstack(tf.shape(pixels))
        rows = tf.reshape(pixels, (1, height, 1, width * channels))
        rows = tf.image.resize(rows, (image_size, 1), antialias=True)
        pixels = tf.transpose(tf.reshape(rows, (image_size, width, channels)), (1, 0, 2))
    return pixels


def decode(encoded: tf.Tensor, least_side: int | None = None) -> tf.Tensor:
    """Decode a JPEG, PNG or still WebP. Transparent parts are shown on white; of 16 bits the upper 8 are taken.

    Args:
        encoded: () string.
        least_side: a JPEG may be decoded at a reduced size, if both sides keep this many px. By default, full size.

    Returns:
        (height, width, 3) uint8 RGB as stored: EXIF's orientation is not applied.

    Raises:
        tf.errors.InvalidArgumentError: it is another kind of file, or a damaged one.
    """

    def jpeg(ratio: int) -> tf.Tensor:
        # The accurate DCT gives Pillow's pixels to the last bit; the default, fast one is darker by one level.
        return tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    def any_jpeg() -> tf.Tensor:
        if least_side is None:
            return jpeg(1)
        sides = tf.io.extract_jpeg_shape(encoded)[:2]
        allowed = [tf.reduce_all(sides // ratio >= least_side) for ratio in RATIOS[1:]]
        index = tf.add_n([tf.cast(a, tf.int32) for a in allowed])
        return tf.switch_case(index, [lambda ratio=ratio: jpeg(ratio) for ratio in RATIOS])

    def refused() -> tf.Tensor:
        # Not left to `decode_jpeg`, which decodes other kinds too, and animations past the end of its memory.
        with tf.control_dependencies([tf.debugging.Assert(False, ["neither JPEG nor PNG nor still WebP"])]):
            return tf.zeros((1, 1, 3), tf.uint8)

    pixels = choose_by_kind(
        encoded,
        jpeg=any_jpeg,
        png=lambda: _show_on_white(_decode_png(encoded)),
        webp=lambda: _show_on_white(tf.io.decode_webp(encoded)[0]),
        other=refused,
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    """(height, width, 1 to 4) uint8: grey, grey and alpha, RGB, or RGBA."""
    return tf.cond(
        is_keyed_png(encoded),
        lambda: tf.io.decode_png(encoded, channels=4),  # makes that color transparent
        lambda: tf.io.decode_png(encoded),
    )


def _show_on_white(stored: tf.Tensor) -> tf.Tensor:
    """(height, width, 1 to 4) uint8 -> (height, width, 3) uint8."""
    channels = tf.shape(stored)[2]
    color = tf.cond(channels <= 2, lambda: tf.repeat(stored[..., :1], 3, axis=2), lambda: stored[..., :3])

    def on_white() -> tf.Tensor:
        alpha = tf.cast(stored[..., -1:], tf.int32)
        return tf.cast((tf.cast(color, tf.int32) * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)

    return tf.cond(channels % 2 == 0, on_white, lambda: color)


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo EXIF's orientation. pixels: (height, width, 3); sides change places for orientations 5 to 8."""

    def transposed() -> tf.Tensor:
        return tf.transpose(pixels, (1, 0, 2))

    # EXIF 2.32, tag 274, values 1 to 8: on which sides of the picture the stored row 0 and column 0 lie.
    turns = [
        lambda: pixels,
        lambda: pixels[:, ::-1],
        lambda: pixels[::-1, ::-1],
        lambda: pixels[::-1],
        transposed,
        lambda: transposed()[:, ::-1],
        lambda: transposed()[::-1, ::-1],
        lambda: transposed()[::-1],
    ]
    # With any other value, the picture is shown as it is stored.
    index = tf.where((orientation >= 1) & (orientation <= 8), orientation - 1, 0)
    return tf.switch_case(tf.cast(index, tf.int32), turns)
