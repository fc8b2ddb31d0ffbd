"""Selects the regions that are worth showing from a model's outputs for an image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Region:
    """An attentional region of an image.

    Attributes:
        box: ymin xmin ymax xmax, fractions of the image.
        class_index: index of the class whose map the region comes from.
        class_name: the class's name.
        global_prob: the class's probability in the global stream.
        prob: the class's fused probability.
    """

    box: tuple[float, float, float, float]
    class_index: int
    class_name: str
    global_prob: float
    prob: float

    @property
    def title(self) -> str:
        """The region's label in a picture, as `make_title` makes it."""
        return make_title(self.class_name, self.global_prob, self.prob)


def make_title(class_name: str, global_prob: float, prob: float) -> str:
    """The class with its global and fused probability, as in Fig. 6: `train: 0.14 / 0.99`."""
    return f"{class_name}: {global_prob:.2f} / {prob:.2f}"


def regions_of_outputs(outputs: Mapping[str, Array], classes: Sequence[str]) -> list[Region]:
    """All regions of an image, in the order of its boxes. Arguments as for `select_regions`."""
    return [
        Region(
            tuple(float(side) for side in box),  # type: ignore[arg-type]
            int(c),
            classes[c],
            float(outputs["global_probs"][c]),
            float(outputs["probs"][c]),
        )
        for box, c in zip(outputs["boxes"], outputs["box_classes"], strict=True)
    ]


def select_regions(
    outputs: Mapping[str, Array],
    classes: Sequence[str],
    global_threshold: float = 0.1,
    threshold: npt.ArrayLike = 0.6,
) -> list[Region]:
    """The regions to show: those with global probability > 0.1 and fused probability above the threshold (Fig. 6).

    Args:
        outputs: the outputs for one image: `global_probs` and `probs` (C,), `boxes` (N, 4), `box_classes` (N,).
        classes: the C names.
        global_threshold: what the class's global probability must exceed.
        threshold: what its fused probability must exceed: one number, or one per class (C,). The paper's is 0.6.

    Returns:
        The regions, the most probable first.
    """
    thresholds = np.broadcast_to(np.asarray(threshold, np.float64), len(classes))
    shown = [
        region
        for region in regions_of_outputs(outputs, classes)
        if region.global_prob > global_threshold and region.prob > thresholds[region.class_index]
    ]
    return sorted(shown, key=lambda region: -region.prob)
