"""What a model said about the images of a split, beside what is true. Loads no TensorFlow.

Letters: N images, C classes, R regions an image.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.evaluating.columns import STREAMS

Array = npt.NDArray[Any]

BLOCK = 2**22  # pairs of image and class that are worked on at a time: 32 MB in double precision
WHOLE = slice(None)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Yes or no for every image and class, eight to a byte.

    Attributes:
        bits: (N, C / 8, rounded up) uint8, as `np.packbits` has them.
        classes: C.
    """

    bits: Array
    classes: int

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Flags":
        """Of an (N, C) array: yes where it is above 0."""
        values = np.asarray(values)
        return cls(np.packbits(values > 0, axis=1), values.shape[1])

    def unpack(self, rows: slice = WHOLE, classes: slice = WHOLE) -> Array:
        """Some rows and classes, or all, as an array of bool."""
        start, stop, _ = classes.indices(self.classes)
        bits = self.bits[rows, start // 8 : -(-stop // 8)]
        return np.unpackbits(bits, axis=1).view(bool)[:, start % 8 : start % 8 + stop - start]

    def pairs(self, rows: Array, classes: Array) -> Array:
        """Single pairs, as `array[rows, classes]` gives them."""
        return (self.bits[rows, classes // 8] >> (7 - classes % 8).astype(np.uint8)) & 1 == 1


class Predictions:
    """What a model said about every image of a split, beside what is true; rows in the dataset's order.

    It takes three numbers of 4 bytes and two bits for each image and class, and two numbers where the fused
    probability is the larger one of the two streams'. What works on all pairs of image and class does so by blocks:
    `class_blocks`, `row_blocks`.

    Args:
        ids: (N,) str.
        labels: (N, C), above 0 where the class is in the image; an array, or `Flags`.
        weights: (N, C), 0 where a label doesn't count; an array, or `Flags`.
        global_probs, local_probs: (N, C) float32.
        probs: (N, C) float32, fused; None: the larger one of the two others.
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
        """(N, C) float32, fused; where it is the larger one of both streams', a new array each time."""
        return self.stream("fused")

    def stream(self, name: str, rows: slice = WHOLE, classes: slice = WHOLE) -> Array:
        """Some rows and classes, or all, of a stream's probabilities, float32.

        Args:
            name: one of `STREAMS`.
            rows: of the images.
            classes: of the classes.
        """
        by_name = {"global": self.global_probs, "local": self.local_probs, "fused": self.fused_probs}
        if (probs := by_name[name]) is None:
            return np.maximum(self.global_probs[rows, classes], self.local_probs[rows, classes])
        return probs[rows, classes]

    def truth(self, rows: slice = WHOLE, classes: slice = WHOLE) -> tuple[Array, Array]:
        """Some rows and classes, or all, of the labels and of whether they count, bool."""
        return self.label_flags.unpack(rows, classes), self.weight_flags.unpack(rows, classes)

    def pairs(self, rows: Array, classes: Array) -> Array:
        """Fused probabilities of single pairs, as `probs[rows, classes]` gives them."""
        if self.fused_probs is not None:
            return self.fused_probs[rows, classes]
        return np.maximum(self.global_probs[rows, classes], self.local_probs[rows, classes])

    def outputs(self, row: int) -> dict[str, Array]:
        """The model's outputs for one image."""
        rows = slice(row, row + 1)
        streams = {field: self.stream(name, rows)[0] for name, field in STREAMS.items()}
        return streams | {name: getattr(self, name)[row] for name in ("boxes", "box_classes", "box_probs")}

    def class_blocks(self) -> Iterator[slice]:
        """Slices of the classes, all images of which are worked on at a time."""
        width = max(8, BLOCK // max(1, len(self)) // 8 * 8)
        return (slice(start, start + width) for start in range(0, self.num_classes, width))

    def row_blocks(self) -> Iterator[slice]:
        """Slices of the images, all classes of which are worked on at a time."""
        height = max(1, BLOCK // max(1, self.num_classes))
        return (slice(start, start + height) for start in range(0, len(self), height))


class FusedProbs:
    """Takes fused probabilities in, and keeps them only if they differ from the larger one of both streams'.

    Args:
        global_probs: (N, C).
        local_probs: (N, C). Both are filled in for the rows that are put.
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
    """Refuse probabilities that are NaN: a comparison with a threshold would make a "no" of each.

    Args:
        outputs: of the model, for N images: `global_probs` and `local_probs`, (N, C) each.
        ids: what to call the images.

    Raises:
        ValueError: naming the first image.
    """
    wrong = np.zeros(len(ids), bool)
    for name in ("global_probs", "local_probs"):
        wrong |= np.isnan(outputs[name].sum(axis=1))  # without an array of its size
    if wrong.any():
        raise ValueError(
            f"The model's probabilities are no numbers for {wrong.sum()} of {len(wrong)} images, the first of them"
            f" {ids[int(wrong.argmax())]}: its training has diverged. Train again with a lower --learning-rate."
        )
