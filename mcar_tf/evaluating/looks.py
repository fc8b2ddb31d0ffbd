"""Counts how often a model looked again, where its options say what is worth a second look."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def doubt_of(global_probs: Array) -> Array:
    """The entropy of the classes' probabilities (B, C), summed: (B,), in bits. See `mcar_tf.models.band`."""
    probs = np.clip(global_probs.astype(np.float64), 1e-12, 1.0 - 1e-12)
    return -(probs * np.log2(probs) + (1.0 - probs) * np.log2(1.0 - probs)).sum(axis=1)


def count_looks(
    global_probs: Array, box_classes: Array, band: Sequence[float] | None, doubt: float = 0.0
) -> Array:
    """How many regions of each image were looked at, (B,).

    Args:
        global_probs: (B, C).
        box_classes: (B, N) int, the class whose map the region comes from.
        band: lowest and highest global probability of a class whose region is looked at, see `mcar_tf.models.band`;
            None: any probability.
        doubt: least doubt of an image that is looked at again, in bits.
    """
    low, high = band or (-np.inf, np.inf)
    probs = np.take_along_axis(global_probs, box_classes, axis=1)
    looked_at = (probs >= low) & (probs <= high) & (doubt_of(global_probs) >= doubt)[:, np.newaxis]
    return looked_at.sum(axis=1)
