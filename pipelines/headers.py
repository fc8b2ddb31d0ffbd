"""Read kind, size and EXIF orientation from the headers of an encoded picture, in graph mode.

Nothing here decodes a pixel or walks through more than `MOST_PARTS` parts of a file, so a server can check what it
was sent before it decodes any of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

JPEG, PNG, ANIMATION, WEBP, OTHER = range(5)
MOST_PARTS = 10_000  # segments or chunks; what comes after so many is not seen
EXIF_MARK = b"Exif\x00\x00"
Branch = Callable[[], Any]

# How the files of each kind begin: bytes, and which of their bits count. Byte 20 of WebP has a bit for animations.
_STARTS, _BITS = np.zeros((5, 24), np.uint8), np.zeros((5, 24), np.uint8)
for _kind, _place, _start, _bits in (
    (JPEG, 0, b"\xff\xd8\xff", 0xFF),
    (PNG, 0, b"\x89PNG\r\n\x1a\n", 0xFF),
    (ANIMATION, 0, b"RIFF", 0xFF),
    (ANIMATION, 8, b"WEBPVP8X", 0xFF),
    (ANIMATION, 20, b"\x02", 0x02),
    (WEBP, 0, b"RIFF", 0xFF),
    (WEBP, 8, b"WEBP", 0xFF),
):
    _STARTS[_kind, _place : _place + len(_start)] = list(_start)
    _BITS[_kind, _place : _place + len(_start)] = _bits

# What follows a JPEG marker (0xFF and this byte): a segment that states its length, fill bytes, or nothing.
_SEGMENT, _FILL, _ALONE, _SCAN, _APP1 = range(5)
_MARKERS = np.full(256, _SEGMENT, np.int32)
_MARKERS[[0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)]] = _ALONE
_MARKERS[[0xFF, 0xDA, 0xE1]] = _FILL, _SCAN, _APP1

# For each number of a TIFF type: how many bytes a value takes (0 if there is no such type), and how it is written.
# EXIF stores the orientation as SHORT (3), but writers differ.
_BYTE, _SHORT, _LONG, _LONG8, _FRACTION, _FLOAT, _DOUBLE, _NO_NUMBER = range(8)
_UNITS = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 0])
_FORMS = np.full(18, _NO_NUMBER, np.int32)
_FORMS[6], _FORMS[[3, 8]], _FORMS[[4, 9, 13]], _FORMS[16] = _BYTE, _SHORT, _LONG, _LONG8
_FORMS[[5, 10]], _FORMS[11], _FORMS[12] = _FRACTION, _FLOAT, _DOUBLE
_ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4


def find_kind(encoded: tf.Tensor) -> tf.Tensor:
    """The kind of a file by its first bytes: `JPEG`, `PNG`, `WEBP`, `ANIMATION` (an animated WebP) or `OTHER`.

    The last two are not decoded.

    Args:
        encoded: () string, a file's bytes.

    Returns:
        () int32.
    """
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=24)
    fits = tf.reduce_all(tf.bitwise.bitwise_and(head, _BITS) == _STARTS, axis=1)
    return tf.argmax(fits, output_type=tf.int32)  # the first that fits; `OTHER` always does


def choose_by_kind(encoded: tf.Tensor, *, jpeg: Branch, png: Branch, webp: Branch, other: Branch) -> Any:
    """Return what the function for this kind of file returns; in a graph, no other function is run."""
    branches = {JPEG: jpeg, PNG: png, ANIMATION: other, WEBP: webp, OTHER: other}
    return tf.switch_case(find_kind(encoded), branches)


def read_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width in px as stored, each () int64, without decoding; 0 where a file states none.

    Args:
        encoded: () string.

    Raises:
        tf.errors.InvalidArgumentError: it begins like a JPEG but has no header.
    """
    size = choose_by_kind(
        encoded,
        jpeg=lambda: tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64),
        png=lambda: _read_png_size(encoded),
        webp=lambda: _read_webp_size(encoded),
        other=lambda: tf.zeros(2, tf.int64),
    )
    return size[0], size[1]


def read_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP, as Pillow finds it.

    XMP and text chunks of PNG, which may state it too, don't count.

    Args:
        encoded: () string.

    Returns:
        () int32 in 1 to 8; 1 where there is no EXIF or it makes no sense, and for any other bytes.
    """
    exif = choose_by_kind(
        encoded,
        jpeg=lambda: _find_jpeg_exif(encoded),
        png=lambda: _find_png_exif(encoded),
        webp=lambda: _find_webp_exif(encoded),
        other=lambda: tf.constant(b""),
    )
    return tf.cond(tf.strings.length(exif) > 0, lambda: _read_exif(exif), lambda: tf.constant(1))


def is_keyed_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether one colour of a PNG without a palette stands for transparent. encoded: () string, a PNG."""
    type_of_color = _digits(encoded, 25, 1)[0]
    return tf.cond(
        (type_of_color == 0) | (type_of_color == 2),
        lambda: tf.strings.length(_find_png_chunk(encoded, b"tRNS", behind_pixels=False)) > 0,
        lambda: tf.constant(False),
    )


# --- JPEG: segments, each a marker of two bytes and, except for some markers, a length and content


def _find_jpeg_exif(encoded: tf.Tensor) -> tf.Tensor:
    """The contents of the EXIF segments before the first scan, joined after one mark; or ""."""
    # Walking from segment to segment takes longer than searching, and many files have no EXIF.
    return tf.cond(
        _contains(encoded, EXIF_MARK),
        lambda: tf.strings.join([EXIF_MARK, _walk_jpeg(encoded)]),
        lambda: tf.constant(b""),
    )


def _walk_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    size = tf.strings.length(encoded)

    def goes_on(place: tf.Tensor, exif: tf.Tensor, is_over: tf.Tensor) -> tf.Tensor:
        return ~is_over & (place + 10 <= size)  # the shortest header of a scan has 10 bytes

    def step(place: tf.Tensor, exif: tf.Tensor, is_over: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = tf.strings.substr(encoded, place, 10)
        first, marker, high, low = tf.unstack(_digits(part, 0, 4))
        # Junk between segments is skipped.
        begins = tf.where(first == 0xFF, tf.gather(_MARKERS, marker), _FILL)
        length = tf.maximum(256 * high + low, 2)
        is_exif = (begins == _APP1) & (tf.strings.substr(part, 4, 6) == EXIF_MARK)
        more = tf.strings.substr(encoded, place + 10, tf.where(is_exif, length - 8, 0))
        ahead = tf.where(begins == _FILL, 1, tf.where(begins == _ALONE, 2, 2 + length))
        return tf.minimum(place + ahead, size), tf.strings.join([exif, more]), begins == _SCAN

    start = (tf.constant(2), tf.constant(b""), tf.constant(False))
    return tf.while_loop(goes_on, step, start, maximum_iterations=MOST_PARTS)[1]


# --- PNG: chunks, each a length, a name, content, a checksum


def _read_png_size(encoded: tf.Tensor) -> tf.Tensor:
    # The first chunk, after the signature, begins with width and height.
    sides = tf.stack([_whole(_digits(encoded, place, 4)) for place in (20, 16)])
    sides = tf.minimum(sides, 2**31 - 1)  # PNG allows no more, and their product must fit
    return tf.where(_cut(encoded, 12, 4) == b"IHDR", sides, 0)


def _find_png_exif(encoded: tf.Tensor) -> tf.Tensor:
    # As for JPEG, searching first takes less time than walking through the chunks of pixels.
    return tf.cond(
        _contains(encoded, b"eXIf"),
        lambda: tf.strings.join([EXIF_MARK, _find_png_chunk(encoded, b"eXIf", behind_pixels=True)]),
        lambda: tf.constant(b""),
    )


def _find_png_chunk(encoded: tf.Tensor, wanted: bytes, behind_pixels: bool) -> tf.Tensor:
    """The content of the last chunk named `wanted` before the pixels, or "".

    With `behind_pixels`, chunks after the pixels count too if there is none before them.
    """
    size = tf.strings.length(encoded)

    def goes_on(place: tf.Tensor, found: tf.Tensor, is_over: tf.Tensor) -> tf.Tensor:
        return ~is_over & (place + 12 <= size)

    def step(place: tf.Tensor, found: tf.Tensor, is_over: tf.Tensor) -> tuple[tf.Tensor, ...]:
        length = tf.io.decode_raw(tf.strings.substr(encoded, place, 4), tf.int32, little_endian=False)[0]
        name = tf.strings.substr(encoded, place + 4, 4)
        fits = (length >= 0) & (length <= size - place - 12)
        is_wanted = fits & (name == wanted)
        content = tf.strings.substr(encoded, place + 8, tf.where(is_wanted, length, 0))
        found = tf.where(is_wanted, content, found)
        is_over = name == b"IDAT"
        if behind_pixels:
            is_over &= tf.strings.length(found) > 0
        return tf.where(fits, place + 12 + length, size), found, is_over

    start = (tf.constant(8), tf.constant(b""), tf.constant(False))
    return tf.while_loop(goes_on, step, start, maximum_iterations=MOST_PARTS)[1]


# --- WebP: RIFF's chunks, each a name, a length, content; RFC 9649, and RFC 6386, section 9.1


def _read_webp_size(encoded: tf.Tensor) -> tf.Tensor:
    def number(place: int, count: int) -> tf.Tensor:
        return _whole(_digits(encoded, place, count)[::-1])

    bits = number(21, 4)
    sizes = {
        b"VP8X": (1 + number(27, 3), 1 + number(24, 3)),
        b"VP8L": (1 + bits // 2**14 % 2**14, 1 + bits % 2**14),
        b"VP8 ": (number(28, 2) % 2**14, number(26, 2) % 2**14),
    }
    first = _cut(encoded, 12, 4)
    return tf.add_n([tf.where(first == name, tf.stack(size), 0) for name, size in sizes.items()])


def _find_webp_exif(encoded: tf.Tensor) -> tf.Tensor:
    """The content of the first EXIF chunk that is not empty, if the file's header announces one; or ""."""
    size = tf.strings.length(encoded)
    says_so = (_cut(encoded, 12, 4) == b"VP8X") & (_digits(encoded, 20, 1)[0] // 8 % 2 == 1)

    def goes_on(place: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return says_so & (tf.strings.length(found) == 0) & (place + 8 <= size)

    def step(place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        length = tf.io.decode_raw(tf.strings.substr(encoded, place + 4, 4), tf.int32)[0]
        fits = (length >= 0) & (length <= size - place - 8)
        is_wanted = fits & (tf.strings.substr(encoded, place, 4) == b"EXIF")
        found = tf.strings.substr(encoded, place + 8, tf.where(is_wanted, length, 0))
        return tf.where(fits, place + 8 + length + length % 2, size), found

    return tf.while_loop(goes_on, step, (tf.constant(12), tf.constant(b"")), maximum_iterations=MOST_PARTS)[1]


# --- EXIF: a TIFF file without a picture; TIFF 6.0, section 2


def _read_exif(exif: tf.Tensor) -> tf.Tensor:
    for _ in range(2):  # some writers put the mark there twice
        is_marked = tf.strings.substr(exif, 0, 6) == EXIF_MARK
        exif = _cut(exif, tf.where(is_marked, 6, 0), tf.strings.length(exif))
    size = tf.strings.length(exif)
    order = tf.strings.substr(exif, 0, 4)
    is_little = (order == b"II*\x00") | (order == b"II\x00*")
    is_tiff = is_little | (order == b"MM\x00*") | (order == b"MM*\x00") | (order == b"MM\x00+")

    def number(digits: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, _whole(digits[..., ::-1]), _whole(digits))

    directory = tf.cast(tf.minimum(number(_digits(exif, 4, 4)), tf.cast(size, tf.int64)), tf.int32)
    count = tf.cast(number(_digits(exif, directory, 2)), tf.int32)
    count = tf.minimum(count, tf.maximum(size - directory - 2, 0) // 12)
    # Entries of 12 bytes: tag, type, number of values, and the values, or their place if they take more than 4 bytes.
    entries = tf.io.decode_raw(_cut(exif, directory + 2, 12 * count), tf.uint8)
    entries = tf.cast(tf.reshape(entries, (-1, 12)), tf.int32)
    types = tf.minimum(number(entries[:, 2:4]), len(_UNITS) - 1)
    lengths = tf.gather(_UNITS, types) * number(entries[:, 4:8])
    inside = tf.cast(directory + 10 + 12 * tf.range(count), tf.int64)
    is_elsewhere = lengths > 4
    places = tf.where(is_elsewhere, number(entries[:, 8:12]), inside)
    # Like Pillow, leave out values once their lengths together exceed the whole, and all entries from the first value
    # on that is cut off.
    all_elsewhere = tf.cumsum(tf.where(is_elsewhere, lengths, 0))
    is_too_long = is_elsewhere & (all_elsewhere > tf.cast(size, tf.int64))
    is_cut_off = is_elsewhere & ~is_too_long & (places + lengths > tf.cast(size, tf.int64))
    is_read = (lengths > 0) & ~is_too_long & (tf.cumsum(tf.cast(is_cut_off, tf.int32)) == 0)
    is_orientation = is_read & (number(entries[:, :2]) == _ORIENTATION)
    chosen = tf.argmax(tf.concat([is_orientation, [True]], 0), output_type=tf.int32)  # the first

    def value() -> tf.Tensor:
        digits = _digits(exif, tf.cast(places[chosen], tf.int32), 8)
        byte, short, long, behind = (number(digits[i:j]) for i, j in ((0, 1), (0, 2), (0, 4), (4, 8)))
        long8 = number(digits)
        numbers = [tf.cast(integer, tf.float64) for integer in (byte, short, long, long8)]
        numbers.append(numbers[_LONG] / tf.cast(behind, tf.float64))
        numbers.append(tf.cast(tf.bitcast(tf.cast(long, tf.int32), tf.float32), tf.float64))
        numbers.append(tf.bitcast(long8, tf.float64))
        numbers.append(tf.constant(0, tf.float64))
        found = tf.stack(numbers)[tf.gather(_FORMS, types[chosen])]
        # 1 if `found` is not an orientation
        return 1 + tf.argmax(found == tf.range(1, 9, dtype=tf.float64), output_type=tf.int32)

    return tf.cond(is_tiff & (chosen < count), value, lambda: tf.constant(1))


# --- Bytes


def _contains(data: tf.Tensor, sought: bytes) -> tf.Tensor:
    return tf.size(tf.raw_ops.StringSplitV2(input=[data], sep=sought, maxsplit=1).values) > 1


def _cut(data: tf.Tensor, place: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """At most `count` bytes from `place` on: fewer near the end, none beyond it."""
    return tf.strings.substr(data, tf.minimum(place, tf.strings.length(data)), count)


def _digits(data: tf.Tensor, place: tf.Tensor | int, count: int) -> tf.Tensor:
    """(count,) int32, the bytes from `place` on; 0 beyond the end."""
    return tf.cast(tf.io.decode_raw(_cut(data, place, count), tf.uint8, fixed_length=count), tf.int32)


def _whole(digits: tf.Tensor) -> tf.Tensor:
    """The number that bytes make as digits, the highest first: (..., n) int32 -> (...) int64."""
    places = 256 ** np.arange(digits.shape[-1], dtype=np.int64)[::-1]
    return tf.reduce_sum(tf.cast(digits, tf.int64) * places, -1)
