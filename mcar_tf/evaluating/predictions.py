"""A model's predictions for the images of a split, together with the true labels. Loads no TensorFlow.

Letters: N images, C classes, R regions per image.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.evaluating.columns import STREAMS

Array = npt.NDArray[Any]

BLOCK = 2**22  # pairs of image and class that are processed at a time: 32 MB in double precision
WHOLE = slice(None)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Yes or no for every image and class, stored as eight values per byte.

    Attributes:
        bits: (N, C / 8 rounded up) uint8, as `np.packbits` makes them.
        classes: C.
    """

    bits: Array
    classes: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Flags":
        """Make flags from an (N, C) array: yes where it is above 0."""
        values = np.asarray(values)
        return cls(np.packbits(values > 0, axis=1), values.shape[1])

    def unpack(self, rows: slice = WHOLE, classes: slice = WHOLE) -> Array:
        """The given rows and classes, by default all, as an array of bool."""
        start, stop, _ = classes.indices(self.classes)
        bits = self.bits[rows, start // 8 : -(-stop // 8)]
        return np.unpackbits(bits, axis=1).view(bool)[:, start % 8 : start % 8 + stop - start]

    def pairs(self, rows: Array, classes: Array) -> Array:
        """The values of single pairs, like `array[rows, classes]`."""
        return (self.bits[rows, classes // 8] >> (7 - classes % 8).astype(np.uint8)) & 1 == 1


class Predictions:
    """A model's predictions for every image of a split, and the true labels; rows are in the dataset's order.

    Each pair of image and class takes three numbers of 4 bytes and two bits; only two numbers if the fused
    probability is always the larger one of the two streams'. Code that works on all pairs should do so by blocks:
    `class_blocks`, `row_blocks`.

    Args:
        ids: (N,) str.
        labels: (N, C), above 0 where the class is in the image; an array, or `Flags`.
        weights: (N, C), 0 where a label doesn't count; an array, or `Flags`.
        global_probs, local_probs: (N, C) float32.
        probs: (N, C) float32, fused; None if they are the larger one of the two streams'.
        boxes: (N, R, 4) float32, ymin xmin ymax xmax as fractions of the image.
        box_classes: (N, R) int32.
        box_probs: (N, R) float32.
    """

    def __init__(
        self,
        ids: Array,
        labels: Array | Flags,
        weights: Array | Flags,
        global_probs: Array,
        local_probs: Array,
        probs: Array | None,
        boxes: Array,
        box_classes: Array,
        box_probs: Array,
    ) -> None:
        self.ids = ids
        self.label_flags = labels if isinstance(labels, Flags) else Flags.of(labels)
        self.weight_flags = weights if isinstance(weights, Flags) else Flags.of(weights)
        self.global_probs, self.local_probs, self.fused_probs = global_probs, local_probs, probs
        self.boxes, self.box_classes, self.box_probs = boxes, box_classes, box_probs

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.label_flags.classes

    @property
    def labels(self) -> Array:
        """(N, C) bool; a new array each time."""
        return self.label_flags.unpack()

    @property
    def weights(self) -> Array:
        """(N, C) bool, whether a label counts; a new array each time."""
        return self.weight_flags.unpack()

    @property
    def probs(self) -> Array:
        """(N, C) float32, fused; a new array each time if they are the larger one of the two streams'."""
        return self.stream("fused")

    def stream(self, name: str, rows: slice = WHOLE, classes: slice = WHOLE) -> Array:
        """A stream's probabilities for the given rows and classes, by default all, float32.

        Args:
            name: one of `STREAMS`.
            rows: which images.
            classes: which classes.
        """
        by_name = {"global": self.global_probs, "local": self.local_probs, "fused": self.fused_probs}
        if (probs := by_name[name]) is None:
            return np.maximum(self.global_probs[rows, classes], self.local_probs[rows, classes])
        return probs[rows, classes]

    def truth(self, rows: slice = WHOLE, classes: slice = WHOLE) -> tuple[Array, Array]:
        """The labels, and whether each counts, for the given rows and classes, by default all; both bool."""
        return self.label_flags.unpack(rows, classes), self.weight_flags.unpack(rows, classes)

    def pairs(self, rows: Array, classes: Array) -> Array:
        """Fused probabilities of single pairs, like `probs[rows, classes]`."""
        if self.fused_probs is not None:
            return self.fused_probs[rows, classes]
        return np.maximum(self.global_probs[rows, classes], self.local_probs[rows, classes])

    def outputs(self, row: int) -> dict[str, Array]:
        """The model's outputs for one image."""
        rows = slice(row, row + 1)
        streams = {field: self.stream(name, rows)[0] for name, field in STREAMS.items()}
        return streams | {name: getattr(self, name)[row] for name in ("boxes", "box_classes", "box_probs")}

    def class_blocks(self) -> Iterator[slice]:
        """Slices of the classes, each small enough to be processed for all images at once."""
        width = max(8, BLOCK // max(1, len(self)) // 8 * 8)
        return (slice(start, start + width) for start in range(0, self.num_classes, width))

    def row_blocks(self) -> Iterator[slice]:
        """Slices of the images, each small enough to be processed for all classes at once."""
        height = max(1, BLOCK // max(1, self.num_classes))
        return (slice(start, start + height) for start in range(0, len(self), height))


class FusedProbs:
    """Collects fused probabilities, and stores them only if they differ from the larger one of the two streams'.

    Args:
        global_probs: (N, C).
        local_probs: (N, C). Both must be filled in for the rows that are passed to `put`.
    """

    def __init__(self, global_probs: Array, local_probs: Array) -> None:
        self.streams = global_probs, local_probs
        self.kept: Array | None = None

    def put(self, rows: slice, probs: Array) -> None:
        """Take the next rows."""
        if self.kept is None:
            larger = np.maximum(*(stream[rows] for stream in self.streams))
            if np.array_equal(larger, probs):
                return
            self.kept = np.maximum(*self.streams)
        self.kept[rows] = probs


def check_numbers(outputs: Mapping[str, Array], ids: Sequence[str] | Array) -> None:
    """Refuse probabilities that are NaN, since a comparison with a threshold would treat each of them as a "no".

    Args:
        outputs: the model's outputs for N images: `global_probs` and `local_probs`, (N, C) each.
        ids: names of the images, for the error.

    Raises:
        ValueError: a probability is NaN; the error names the first such image.
    """
    wrong = np.zeros(len(ids), bool)
    for name in ("global_probs", "local_probs"):
        wrong |= np.isnan(outputs[name].sum(axis=1))  # a sum with NaN is NaN: needs no (N, C) array of bool
    if wrong.any():
        raise ValueError(
            f"The model's probabilities are no numbers for {wrong.sum()} of {len(wrong)} images, the first of them"
            f" {ids[int(wrong.argmax())]}: its training has diverged. Train again with a lower --learning-rate."
        )
