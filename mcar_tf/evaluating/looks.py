"""Counts how often a model with a look band looked at a region."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def count_looks(global_probs: Array, box_classes: Array, band: Sequence[float] | None) -> Array:
    """How many regions of each image were looked at, (B,).

    Args:
        global_probs: (B, C).
        box_classes: (B, N) int, the class whose map the region comes from.
        band: lowest and highest global probability of a class whose region is looked at, see `mcar_tf.models.band`;
            None if all regions were looked at.
    """
    low, high = band or (-np.inf, np.inf)
    probs = np.take_along_axis(global_probs, box_classes, axis=1)
    return ((probs >= low) & (probs <= high)).sum(axis=1)
