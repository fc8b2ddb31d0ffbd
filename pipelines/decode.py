"""Encoded pictures in, upright pixels of one size out: in training, evaluation and serving alike."""

import tensorflow as tf


def decode_and_resize(encoded: tf.Tensor, orientation: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a JPEG or PNG, turn it upright, warp it to a square: bilinear with antialiasing, as Pillow does.

    Args:
        encoded: () string, the file's bytes.
        orientation: () integer, EXIF's, 1 to 8.
        image_size: side S of the result in px.

    Returns:
        (S, S, 3) float32 in [0, 255].
    """
    pixels = turn_upright(decode(encoded), orientation)
    resized = tf.image.resize(pixels, (image_size, image_size), antialias=True)
    return tf.ensure_shape(resized, (image_size, image_size, 3))


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """() string -> (height, width, 3) uint8 RGB as stored, EXIF's orientation not applied."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo EXIF's orientation. pixels: (height, width, 3); sides change places for orientations 5 to 8."""

    def transposed() -> tf.Tensor:
        return tf.transpose(pixels, (1, 0, 2))

    # EXIF 2.32, tag 274, values 1 to 8: on which sides of the picture row 0 and column 0 of what is stored lie.
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
    return tf.switch_case(tf.cast(orientation, tf.int32) - 1, turns, default=turns[0])
