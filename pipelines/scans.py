"""Detect JPEGs with so many scans that decoding them would take too long.

A progressive JPEG comes in scans, each of which touches every pixel. Ordinary ones have about ten. A file of a
megabyte can hold ten thousand, which keep a decoder busy for minutes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# The marker of a scan and the first byte of its length, which is 0 since the length is below 256. By chance, these
# three bytes stand together once in 16 MB.
START_OF_SCAN = b"\xff\xda\x00"
MAX_SCANS = 300
# Megapixels times scans. A scan takes at most 1.5 ms per megapixel, measured on one core: these take 4.5 s.
MAX_MEGAPIXEL_SCANS = 3000


def has_too_many_scans(encoded: bytes, pixels: int) -> bool:
    """Whether a file has too many scans to be decoded. pixels: how many its header says it has."""
    scans = encoded.count(START_OF_SCAN)
    return scans > MAX_SCANS or scans * pixels > MAX_MEGAPIXEL_SCANS * 1e6


def has_too_many_scans_in_graph(encoded: "tf.Tensor", pixels: "tf.Tensor") -> "tf.Tensor":
    """The same as `has_too_many_scans`, in graph mode.

    Args:
        encoded: () string.
        pixels: () int64, at most 10^15.

    Returns:
        () bool.
    """
    import tensorflow as tf

    # Split at each scan, but into no more pieces than are needed to decide.
    pieces = tf.strings.split(encoded, START_OF_SCAN, maxsplit=MAX_SCANS + 1)
    scans = tf.size(pieces, tf.int64) - 1
    return (scans > MAX_SCANS) | (scans * pixels > round(MAX_MEGAPIXEL_SCANS * 1e6))
