"""Find attentional regions: one box for each class activation map. No parameters (section III-B3).

Letters: B images, N regions, H x W pixels, h x w cells of a map, L the length of one axis.
"""

import tensorflow as tf

from mcar_tf.models.arguments import check_choice
from mcar_tf.models.boxes import widen_boxes

LOCALIZERS = ("threshold", "moments")
# A range of halved scores below float32's smallest normal number counts as none: processors flush it to zero.
_TINY = 1.1754944e-38
# Doubling steps if the length of an axis is not known when the graph is built: enough for 32,768 px.
_DYNAMIC_STEPS = 15


def localize(
    maps: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    tau: float,
    *,
    localizer: str = "threshold",
    box_spread: float = 1.8,
    min_box_cells: float = 0.0,
) -> tf.Tensor:
    """Box of the most discriminative region of each map: equations (5) to (7).

    Args:
        maps: (B, N, h, w), logits of any floating-point type; the computation is in float32.
        height: pixels of the image's vertical axis, H.
        width: pixels of the image's horizontal axis, W.
        tau: threshold on the min-max normalized marginals, in [0, 1); only for "threshold".
        localizer: the rule by which a marginal gives an interval: "threshold", the paper's `find_interval`, or
            "moments", `spread_interval`.
        box_spread: `spread` of `spread_interval`, only for "moments".
        min_box_cells: least side of a box in cells of the map; half a cell is noise.

    Returns:
        (B, N, 4) float32, ymin xmin ymax xmax as fractions of the image, such as start / H and stop / H.
    """
    row_marginal, column_marginal = marginals(tf.sigmoid(tf.cast(maps, tf.float32)), height, width)
    if localizer == "threshold":
        (top, bottom), (left, right) = find_interval(row_marginal, tau), find_interval(column_marginal, tau)
    else:
        top, bottom = spread_interval(row_marginal, box_spread)
        left, right = spread_interval(column_marginal, box_spread)
    sides = tf.cast(tf.stack([height, width, height, width]), tf.float32)
    boxes = tf.cast(tf.stack([top, left, bottom, right], axis=-1), tf.float32) / sides
    if min_box_cells:
        cells = tf.cast(tf.shape(maps)[2:], tf.float32)
        boxes = widen_boxes(boxes, min_box_cells / cells[0], min_box_cells / cells[1])
    return boxes


def marginals(
    maps: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Maximum of each row and of each column of the maps, upsampled bilinearly with aligned corners: equation (5).

    Along a row the upsampled map is linear between two cells, so its maximum is at a pixel next to a cell. Only
    about 2 w columns are computed instead of W, and the upsampled map is never built.

    Args:
        maps: (B, N, h, w) float32.
        height: H.
        width: W.

    Returns:
        (B, N, H) maxima of the rows and (B, N, W) maxima of the columns.
    """
    beside_rows = _pixels_beside_cells(tf.shape(maps)[2], height)
    beside_columns = _pixels_beside_cells(tf.shape(maps)[3], width)
    rows = upsample_height(upsample_width(maps, beside_columns, width), tf.range(height), height)
    columns = upsample_width(upsample_height(maps, beside_rows, height), tf.range(width), width)
    return tf.reduce_max(rows, axis=3), tf.reduce_max(columns, axis=2)


def find_interval(scores: tf.Tensor, tau: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The interval that a marginal points at: equations (6) and (7), the choice among runs, both guards.

    Among the maximal runs of positions whose min-max normalized score is at least `tau`, it is the one with the
    global maximum; if several have it, the widest of them; if several are equally wide, the first. A constant
    marginal (which can't be normalized) gives the middle three quarters; `tau = 0` gives the whole axis, before any
    other rule. An interval shorter than an eighth of the axis is widened about its centre to that length.

    Args:
        scores: (..., L), raw marginals, finite.
        tau: in [0, 1).

    Returns:
        start and stop, each (...) int32, 0 <= start < stop <= L; stop is exclusive.

    Raises:
        ValueError: `tau` outside [0, 1).
    """
    check_tau(tau)
    scores = tf.convert_to_tensor(scores, tf.float32)
    length = scores.shape[-1] or tf.shape(scores)[-1]
    steps = max(length - 1, 1).bit_length() if isinstance(length, int) else _DYNAMIC_STEPS
    if tau == 0.0:
        start = tf.zeros(tf.shape(scores)[:-1], tf.int32)
        return start, start + length

    scores = 0.5 * scores  # gives the same quotients, and the range can't overflow
    low = tf.reduce_min(scores, axis=-1, keepdims=True)
    high = tf.reduce_max(scores, axis=-1, keepdims=True)
    normalized, varies = _normalize(scores, low, high)
    above = normalized >= tau
    peak = scores == high

    # For each position, the last one up to and including it that is not above, and that is a peak (-1: none).
    position = tf.range(length, dtype=tf.int32) + tf.zeros_like(scores, tf.int32)
    last = _cumulative_max(tf.where(tf.stack([~above, peak]), position, -1), length, steps)
    last_below, last_peak = last[0], last[1]
    # Each run is represented by its last position. argmax compares widths, and takes the first of the widest.
    ends = above & tf.concat([~above[..., 1:], tf.ones_like(above[..., :1])], axis=-1)
    run_width = tf.where(ends & (last_peak > last_below), position - last_below, 0)
    stop = tf.argmax(run_width, axis=-1, output_type=tf.int32) + 1
    start = stop - tf.reduce_max(run_width, axis=-1)

    varies = varies[..., 0]
    start = tf.where(varies, start, (length + 7) // 8)
    stop = tf.where(varies, stop, (7 * length + 7) // 8)
    shortest = (length + 7) // 8
    widened = tf.clip_by_value((start + stop - shortest) // 2, 0, length - shortest)
    is_short = stop - start < shortest
    return tf.where(is_short, widened, start), tf.where(is_short, widened + shortest, stop)


def spread_interval(scores: tf.Tensor, spread: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The interval of a marginal's mass: mean +- `spread` standard deviations of its square.

    The squared min-max normalized marginal is used as a density over the axis. For a uniform stretch, a spread of
    sqrt(3) gives exactly that stretch. All positions contribute, so the interval moves smoothly with the map, where
    that of `find_interval` jumps. Whatever lies beyond the axis is cut off; the two guards are those of
    `find_interval`.

    Args:
        scores: (..., L), raw marginals, finite.
        spread: positive.

    Returns:
        start and stop, each (...) float32 pixels, 0 <= start < stop <= L.
    """
    scores = tf.convert_to_tensor(scores, tf.float32)
    length = tf.cast(scores.shape[-1] or tf.shape(scores)[-1], tf.float32)
    low, high = tf.reduce_min(scores, axis=-1, keepdims=True), tf.reduce_max(scores, axis=-1, keepdims=True)
    normalized, varies = _normalize(scores, low, high)
    density = tf.square(normalized)
    density /= tf.where(varies, tf.reduce_sum(density, axis=-1, keepdims=True), 1.0)
    position = (tf.range(length) + 0.5) / length  # middle of each pixel, as a fraction of the axis
    mean = tf.reduce_sum(density * position, axis=-1, keepdims=True)
    variance = tf.reduce_sum(density * tf.square(position - mean), axis=-1)
    varies = varies[..., 0]
    mean = tf.where(varies, mean[..., 0], 0.5)
    half = tf.where(varies, spread * tf.sqrt(variance), 0.375)
    start, stop = tf.maximum(mean - half, 0.0), tf.minimum(mean + half, 1.0)
    side = tf.maximum(stop - start, 0.125)
    start = tf.clip_by_value(0.5 * (start + stop - side), 0.0, 1.0 - side)
    return start * length, (start + side) * length


def _normalize(scores: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores (..., L) scaled to [0, 1], 0 where they are constant, and (..., 1) whether they vary."""
    varies = high - low >= _TINY
    quotients = (scores - low) / tf.where(varies, high - low, 1.0)
    # In a file of float16 constants `_TINY` is 0, and all quotients of a constant are 0 / 0. Not a number is not at
    # least one half; that it is not below one half, as the converter rewrites a negation, would not do.
    varies &= tf.reduce_max(quotients, axis=-1, keepdims=True) >= 0.5
    return tf.where(varies, quotients, 0.0), varies


def upsample_height(maps: tf.Tensor, rows: tf.Tensor, height: int | tf.Tensor) -> tf.Tensor:
    """(B, N, h, w) -> (B, N, P, w): P rows of the maps upsampled to `height`, with `interpolation_matrix`."""
    size = tf.shape(maps)[2]
    cells_and_steps = tf.einsum("bnhx,sh->bnsx", maps, step_matrix(size))
    return tf.einsum("bnsx,Ys->bnYx", cells_and_steps, interpolation_matrix(rows, size, height))


def upsample_width(maps: tf.Tensor, columns: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """(B, N, h, w) -> (B, N, h, P): the same for columns and `width`."""
    size = tf.shape(maps)[3]
    cells_and_steps = tf.einsum("bnhw,sw->bnhs", maps, step_matrix(size))
    return tf.einsum("bnhs,Xs->bnhX", cells_and_steps, interpolation_matrix(columns, size, width))


def step_matrix(size: int | tf.Tensor) -> tf.Tensor:
    """(2 size, size) matrix that maps cells to themselves and to their steps to the next cell (last: 0), exactly."""
    cells = tf.eye(size)
    return tf.concat([cells, tf.concat([cells[1:], cells[-1:]], axis=0) - cells], axis=0)


def interpolation_matrix(positions: tf.Tensor, size: int | tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """Weights of bilinear interpolation with aligned corners, from `size` cells to pixels of an axis.

    There is a weight for each cell and for each step to the next cell, as in value + fraction * step. Between equal
    cells the result is then exactly their value: a constant map stays constant, and a plateau stays flat. Weights
    1 - f and f don't guarantee that, because their rounded sum may differ from 1.

    Args:
        positions: (P,) int32, pixels in [0, length).
        size: cells of the source axis.
        length: pixels of the target axis.

    Returns:
        (P, 2 size) float32; each row holds a 1 and at most one fraction.
    """
    # Pixel p is at cell p * (size - 1) / (length - 1): quotient and remainder are exact in integers.
    divisor = tf.maximum(length - 1, 1)
    numerator = positions * (size - 1)
    cell = numerator // divisor
    fraction = tf.cast(numerator - cell * divisor, tf.float32) / tf.cast(divisor, tf.float32)
    here = tf.range(size)[tf.newaxis, :] == cell[:, tf.newaxis]
    return tf.concat([tf.cast(here, tf.float32), tf.where(here, fraction[:, tf.newaxis], 0.0)], axis=1)


def check_localizer(localizer: str, tau: float, box_spread: float, min_box_cells: float) -> None:
    """Raise `ValueError` for an unknown rule or values outside their range."""
    check_choice("localizer", localizer, LOCALIZERS)
    check_tau(tau)
    if box_spread <= 0.0:
        raise ValueError(f"`box_spread` must be positive. Received: {box_spread}")
    if min_box_cells < 0.0:
        raise ValueError(f"`min_box_cells` must not be negative. Received: {min_box_cells}")


def check_tau(tau: float) -> None:
    """Raise `ValueError` for a localization threshold outside [0, 1)."""
    if not 0.0 <= tau < 1.0:
        raise ValueError(f"`tau` must lie in [0, 1). Received: {tau}")


def _pixels_beside_cells(size: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """For each cell centre, the pixel at or just before it, and the one at or just after it: (2 size,) int32."""
    numerator = tf.range(size) * (length - 1)
    divisor = tf.maximum(size - 1, 1)
    return tf.concat([numerator // divisor, -(-numerator // divisor)], axis=0)


def _cumulative_max(values: tf.Tensor, length: int | tf.Tensor, steps: int) -> tf.Tensor:
    """Running maximum of integers >= -1 along the last axis, by doubling: `steps` >= log2(length) shifts.

    TensorFlow has no such op; this one uses only ops that TFLite and XLA have too.
    """
    for step in range(steps):
        shift = tf.minimum(2**step, length) if not isinstance(length, int) else min(2**step, length)
        shifted = values[..., : length - shift]
        padding = [[0, 0]] * (values.shape.rank - 1) + [[shift, 0]]
        values = tf.maximum(values, tf.pad(shifted, padding, constant_values=-1))
    return values
