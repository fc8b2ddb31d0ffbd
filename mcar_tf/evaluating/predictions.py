"""What a model said about the images of a split, beside what is true: `predictions.npz`. Loads no TensorFlow.

Letters: N images, C classes, R regions an image.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.files import written_whole

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model said about every image of a set, beside what is true; rows in the dataset's order.

    Attributes:
        ids: (N,) str.
        labels: (N, C) float32, 0 or 1.
        weights: (N, C) float32, 0 where a label doesn't count, else 1.
        global_probs, local_probs, probs: (N, C) float32.
        boxes: (N, R, 4) float32, ymin xmin ymax xmax as fractions of the image.
        box_classes: (N, R) int32.
        box_probs: (N, R) float32.
    """

    ids: Array
    labels: Array
    weights: Array
    global_probs: Array
    local_probs: Array
    probs: Array
    boxes: Array
    box_classes: Array
    box_probs: Array

    def __len__(self) -> int:
        return len(self.ids)


def write_predictions(path: Path, predictions: Predictions, classes: Sequence[str], split: str) -> None:
    """Write `predictions.npz`, whole or not at all: every field of `Predictions`, `classes` and `split`."""
    fields = {f.name: getattr(predictions, f.name) for f in dataclasses.fields(Predictions)}
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, classes=np.array(classes), split=np.array(split), **fields)


class SplitPredictions(NamedTuple):
    """What a `predictions.npz` holds."""

    predictions: Predictions
    classes: tuple[str, ...]
    split: str


def read_predictions(path: Path) -> SplitPredictions:
    """Read what `write_predictions` wrote."""
    with np.load(path) as file:
        fields = {f.name: file[f.name] for f in dataclasses.fields(Predictions)}
        return SplitPredictions(Predictions(**fields), tuple(map(str, file["classes"])), str(file["split"]))


def check_numbers(outputs: Mapping[str, Array], ids: Sequence[str] | Array) -> None:
    """Refuse probabilities that are NaN: a comparison with a threshold would make a "no" of each.

    Args:
        outputs: of the model, for N images: `global_probs` and `local_probs`, (N, C) each.
        ids: what to call the images.

    Raises:
        ValueError: naming the first image.
    """
    numbers = np.concatenate([outputs["global_probs"], outputs["local_probs"]], axis=1)
    wrong: Array = np.isnan(numbers).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"The model's probabilities are no numbers for {wrong.sum()} of {len(wrong)} images, the first of them"
            f" {ids[int(wrong.argmax())]}: its training has diverged. Train again with a lower --learning-rate."
        )
