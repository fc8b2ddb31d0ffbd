"""Chooses the pictures of an evaluated run that are worth showing, each of them once."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.reporting.drawing import at_most
from mcar_tf.reporting.evaluated_run import EvaluatedRun
from mcar_tf.runs.folder import check_same_pictures, command_on
from mcar_tf.runs.splits import find_split
from pipelines.manifest import load_manifest

Array = npt.NDArray[Any]

MAX_SIDE = 2048  # px of a picture in memory, which holds dozens of photographs at a time


@dataclasses.dataclass(frozen=True)
class Selection:
    """Pictures to show, as rows of the predictions. No picture is in two of the attributes.

    Attributes:
        missed: row -> class that is in the picture but not predicted; the worst first.
        claimed: row -> class that is predicted but not in the picture; the worst first.
        localized: the picture with the clearest region, and the index of that region; None if there is no region.
        looked_at: pictures drawn at random from the others that have a region to show.
    """

    missed: dict[int, int]
    claimed: dict[int, int]
    localized: tuple[int, int] | None
    looked_at: list[int]

    @property
    def rows(self) -> set[int]:
        """The rows of all pictures to show."""
        return {
            *self.missed,
            *self.claimed,
            *self.looked_at,
            *([self.localized[0]] if self.localized else []),
        }


def select_pictures(run: EvaluatedRun, count: int, seed: int) -> Selection:
    """Choose the pictures to show.

    Args:
        run: the run whose predictions and thresholds decide.
        count: how many pictures of each kind to show at most.
        seed: seed for the pictures that are drawn at random.
    """
    predictions, thresholds = run.predictions, run.thresholds
    # How far each picture's worst miss and worst false claim lie on the wrong side of the threshold.
    missed_by, claimed_by = np.empty((2, len(predictions)))
    missed_class, claimed_class = np.empty((2, len(predictions)), int)
    for rows in predictions.row_blocks():
        labels, weights = predictions.truth(rows)
        above = predictions.stream("fused", rows) - thresholds
        missed = np.where(labels & weights, -above, -np.inf)
        claimed = np.where(~labels & weights, above, -np.inf)
        for values, by, which in ((missed, missed_by, missed_class), (claimed, claimed_by, claimed_class)):
            which[rows] = values.argmax(axis=1)
            by[rows] = values.max(axis=1)
    # A picture is shown for the worse of its two errors.
    worst_missed = _worst(missed_by, (missed_by > 0) & (missed_by >= claimed_by))[:count]
    worst_claimed = _worst(claimed_by, (claimed_by >= 0) & (claimed_by > missed_by))[:count]

    used = {*worst_missed, *worst_claimed}
    shown = shown_regions(predictions, thresholds)
    clarity = np.where(shown, _clarity(predictions), -np.inf)
    free = np.array([row not in used for row in range(len(predictions))])
    localized = None
    if shown[free].any():
        row, region = np.unravel_index(np.argmax(np.where(free[:, None], clarity, -np.inf)), clarity.shape)
        localized = int(row), int(region)
        free[row] = False
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(shown.any(axis=1) & free))[:count]
    return Selection(
        missed={row: int(missed_class[row]) for row in worst_missed},
        claimed={row: int(claimed_class[row]) for row in worst_claimed},
        localized=localized,
        looked_at=[int(row) for row in drawn],
    )


def shown_regions(predictions: Predictions, thresholds: Array) -> Array:
    """(N, R) bool: the regions that `mcar_tf.reporting.regions.select_regions` selects."""
    classes = predictions.box_classes
    rows = np.arange(len(predictions))[:, None]
    global_probs = predictions.global_probs[rows, classes]
    probs = predictions.pairs(rows, classes)
    shown: Array = (global_probs > 0.1) & (probs > thresholds[classes])
    return shown


def read_images(run: EvaluatedRun, data_dir: Path, rows: set[int]) -> dict[int, Array]:
    """Upright pictures, reduced to `MAX_SIDE`: row of the predictions -> (H, W, 3) uint8.

    Raises:
        ValueError: the set is no longer the one that the run learnt from or was evaluated on.
    """
    import tensorflow as tf

    from pipelines.decode import decode, turn_upright
    from pipelines.input_pipeline import read_samples
    from pipelines.verify import naming_shards

    manifest = load_manifest(data_dir, run.config.dataset)
    check_same_pictures(run.folder, run.config, manifest)
    wanted = {str(run.predictions.ids[row]): row for row in rows}
    images: dict[int, Array] = {}
    files = find_split(run.config, manifest, run.split).files
    with naming_shards(files):
        for sample, picture in read_samples(files):
            if len(images) == len(wanted):
                break
            if sample.id in wanted:
                pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
                images[wanted[sample.id]] = at_most(pixels.numpy(), MAX_SIDE)
    if len(images) < len(wanted):
        raise ValueError(
            f"{manifest.name} has been built anew since the run was evaluated: pictures are gone."
            f" Run again: {command_on(run.folder, 'evaluate')}"
        )
    return images


def find_class_map(run: EvaluatedRun, image: Array, class_index: int) -> Array:
    """The activation map of one class for a picture after the sigmoid, (h, w) in [0, 1]."""
    import tensorflow as tf

    from mcar_tf.runs.loading import load_run

    model = load_run(run.folder).model
    size = run.config.image_size
    resized = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
    features, _ = model.global_pass(resized[tf.newaxis], training=False)
    return tf.sigmoid(model.classifier.class_activation_maps(features, [[class_index]]))[0, 0].numpy()


def _worst(by: Array, wrong: Array) -> list[int]:
    """The rows where `wrong` is true, the row with the largest `by` first."""
    return [int(row) for row in np.argsort(-by, kind="stable") if wrong[row]]


def _clarity(predictions: Predictions) -> Array:
    """How well each region illustrates the method, (N, R).

    Best is a region whose class is in the picture, with a high global probability, and that covers a quarter of it.
    """
    rows = np.arange(len(predictions))[:, None]
    ymin, xmin, ymax, xmax = np.moveaxis(predictions.boxes, -1, 0)
    is_there = predictions.label_flags.pairs(rows, predictions.box_classes)
    sure = predictions.global_probs[rows, predictions.box_classes]
    return is_there + sure - np.abs((ymax - ymin) * (xmax - xmin) - 0.25)
