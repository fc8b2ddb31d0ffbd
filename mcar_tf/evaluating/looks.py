"""A model's answers and a look band in, how often it looked again out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def count_looks(global_probs: Array, box_classes: Array, band: Sequence[float] | None) -> Array:
    """How many regions of each image were looked at, (B,).

    Args:
        global_probs: (B, C).
        box_classes: (B, N) int, whose map pointed at the region.
        band: `mcar_tf.models.band`; None: all were.
    """
    low, high = band or (-np.inf, np.inf)
    probs = np.take_along_axis(global_probs, box_classes, axis=1)
    return ((probs >= low) & (probs <= high)).sum(axis=1)
