"""The bytes of a picture in; out, whether it is a JPEG of so many scans that decoding it would take too long.

A progressive JPEG comes in scans, each of which touches every pixel. Ordinary ones have about ten. A file of a
megabyte can hold ten thousand, which keep a decoder busy for minutes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# The marker of a scan and the first byte of its length, which is below 256: in other bytes these three stand together
# once in 16 MB.
START_OF_SCAN = b"\xff\xda\x00"
MAX_SCANS = 300
# A scan takes 1.5 ms a megapixel at most, measured on one core: these take 4.5 s.
MAX_MEGAPIXEL_SCANS = 3000


def has_too_many_scans(encoded: bytes, pixels: int) -> bool:
    """Whether a file is not worth decoding. pixels: how many it says it has."""
    scans = encoded.count(START_OF_SCAN)
    return scans > MAX_SCANS or scans * pixels > MAX_MEGAPIXEL_SCANS * 1e6


def has_too_many_scans_in_graph(encoded: "tf.Tensor", pixels: "tf.Tensor") -> "tf.Tensor":
    """The same in a graph.

    Args:
        encoded: () string.
        pixels: () int64, at most 10^15.

    Returns:
        () bool.
    """
    import tensorflow as tf

    # Cut at each scan, but not into more pieces than it takes to know.
    pieces = tf.strings.split(encoded, START_OF_SCAN, maxsplit=MAX_SCANS + 1)
    scans = tf.size(pieces, tf.int64) - 1
    return (scans > MAX_SCANS) | (scans * pixels > round(MAX_MEGAPIXEL_SCANS * 1e6))
