"""Draws the first pictures of a set with their regions."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.reporting.drawing import draw_regions, give_room, make_panel
from mcar_tf.reporting.regions import select_regions
from pipelines.decode import decode, turn_upright
from pipelines.input_pipeline import read_samples
from pipelines.manifest import Part

Array = npt.NDArray[Any]


def draw_examples(
    files: Sequence[Path | Part], predictions: Predictions, classes: Sequence[str], count: int = 12
) -> Array:
    """The first pictures of a set side by side, upright and undistorted, with the regions worth showing (Fig. 6).

    Args:
        files: the set's files.
        predictions: predictions for the set's pictures.
        classes: the C names.
        count: how many pictures to draw at most.

    Returns:
        One (H, W, 3) uint8 image.
    """
    rows = {str(identifier): row for row, identifier in enumerate(predictions.ids)}
    drawn = []
    for sample, picture in itertools.islice(read_samples(files), count):
        pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
        regions = select_regions(predictions.outputs(rows[sample.id]), classes)
        boxes, titles = [region.box for region in regions], [region.title for region in regions]
        drawn.append(draw_regions(give_room(pixels.numpy()), boxes, titles))
    return make_panel(drawn, columns=4)
