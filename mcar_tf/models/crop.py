"""Cut regions out of images and resize them to one size: bilinear, aligned corners, no gradient to the boxes.

Letters: B images, N regions, H x W pixels of an image, h x w of a crop.
"""

from collections.abc import Callable

import tensorflow as tf

# (images, boxes, size) -> crops, like the two functions below.
Crop = Callable[[tf.Tensor, tf.Tensor, int | tuple[int, int]], tf.Tensor]


def crop_and_resize(images: tf.Tensor, boxes: tf.Tensor, size: int | tuple[int, int]) -> tf.Tensor:
    """Crop with TensorFlow's own op, the fast way on CPU and GPU.

    Args:
        images: (B, H, W, 3), any range.
        boxes: (B, N, 4), ymin xmin ymax xmax as fractions of the image: for a region of the pixels start to
            stop - 1, these are start / H and stop / H.
        size: side of the crops in px, or (h, w).

    Returns:
        (B, N, h, w, 3) float32. A box of the whole image gives the image, resized with aligned corners.
    """
    height, width = _sides(size)
    batch, regions, images_height, images_width = _shape(images, boxes)
    # The op takes corners as fractions of the last pixel's index, and paints everything beyond that pixel black, even
    # if it is beyond by a rounding error only. One more row and column, copies of the last, keep both ends inside,
    # and start / H is then exactly the fraction that the op expects.
    padded = tf.pad(images, [[0, 0], [0, 1], [0, 1], [0, 0]], mode="SYMMETRIC")
    one_pixel = tf.cast(tf.stack([0, 0, images_height, images_width]), tf.float32)
    corners = tf.cast(boxes, tf.float32) - tf.math.divide_no_nan(1.0, one_pixel)
    crops = tf.image.crop_and_resize(
        padded,
        tf.reshape(corners, [-1, 4]),
        tf.repeat(tf.range(batch), regions),
        [height, width],
    )
    return tf.reshape(crops, [batch, regions, height, width, images.shape[-1]])


def crop_and_resize_portable(images: tf.Tensor, boxes: tf.Tensor, size: int | tuple[int, int]) -> tf.Tensor:
    """The same crops without TensorFlow's op, which neither TFLite nor XLA has: two gathers per axis.

    Arguments and result are as in `crop_and_resize`; the two agree to 1e-4 of the value range.
    """
    height, width = _sides(size)
    batch, regions, images_height, images_width = _shape(images, boxes)
    images = tf.cast(images, tf.float32)
    ymin, xmin, ymax, xmax = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)  # each (B, N)
    row, row_fraction = _sample_positions(ymin, ymax, images_height, height)  # (B, N, h)
    column, column_fraction = _sample_positions(xmin, xmax, images_width, width)  # (B, N, w)

    row_fraction = row_fraction[..., tf.newaxis, tf.newaxis]
    column_fraction = column_fraction[..., tf.newaxis, tf.newaxis]
    if isinstance(images_width, int) and 2 * width <= images_width:
        # Faster for small crops of a large image, which is not transposed then. For larger crops the way below
        # is faster, because this one copies each pixel by itself.
        upper = tf.gather(images, row, batch_dims=1)  # (B, N, h, W, 3)
        lower = tf.gather(images, tf.minimum(row + 1, images_height - 1), batch_dims=1)
        rows = upper + row_fraction * (lower - upper)
        left = tf.gather(rows, column, axis=3, batch_dims=2)  # (B, N, h, w, 3)
        right = tf.gather(rows, tf.minimum(column + 1, images_width - 1), axis=3, batch_dims=2)
        # A fraction for each number of a row: a multiplication that repeats one for every three is five times slower.
        channels = images.shape[-1]
        fraction = tf.tile(column_fraction[..., 0], [1, 1, 1, channels])  # (B, N, w, 3)
        crops, row_length = tf.shape(left), width * channels
        left, right = (tf.reshape(side, [batch, regions, height, row_length]) for side in (left, right))
        fraction = tf.reshape(fraction, [batch, regions, 1, row_length])
        return tf.reshape(left + fraction * (right - left), crops)

    # (B, H, W, 3) -> (B, W, H, 3), so that gathering whole columns copies long stretches of memory
    columns = tf.transpose(images, [0, 2, 1, 3])
    left = tf.gather(columns, column, batch_dims=1)  # (B, N, w, H, 3)
    right = tf.gather(columns, tf.minimum(column + 1, images_width - 1), batch_dims=1)
    rows = tf.transpose(left + column_fraction * (right - left), [0, 1, 3, 2, 4])  # (B, N, H, w, 3)
    upper = tf.gather(rows, row, batch_dims=2)  # (B, N, h, w, 3)
    lower = tf.gather(rows, tf.minimum(row + 1, images_height - 1), batch_dims=2)
    return upper + row_fraction * (lower - upper)


def _sample_positions(
    start: tf.Tensor, stop: tf.Tensor, length: int | tf.Tensor, count: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """For `count` samples from a box's first pixel to its last: pixel index, and fraction towards the next."""
    length = tf.cast(length, tf.float32)
    first = (start * length)[..., tf.newaxis]
    last = (stop * length - 1.0)[..., tf.newaxis]
    steps = tf.range(count, dtype=tf.float32) / max(count - 1, 1)
    # A single sample is taken in the middle, as in TensorFlow's op.
    position = first + (last - first) * steps if count > 1 else 0.5 * (first + last)
    position = tf.clip_by_value(position, 0.0, length - 1.0)
    index = tf.floor(position)
    return tf.cast(index, tf.int32), position - index


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _shape(images: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """B, N, H, W, each an int if the graph knows it."""
    dynamic = tf.shape(images)
    batch, height, width = (images.shape[i] or dynamic[i] for i in range(3))
    regions = boxes.shape[1] if boxes.shape[1] is not None else tf.shape(boxes)[1]
    return batch, regions, height, width
