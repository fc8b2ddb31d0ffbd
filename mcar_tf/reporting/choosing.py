"""An evaluated run in, the pictures of it that are worth showing out."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.reporting.drawing import Region
from mcar_tf.reporting.evaluated_run import EvaluatedRun, regions_of
from mcar_tf.runs.folder import command_on
from mcar_tf.runs.splits import find_split
from pipelines.manifest import load_manifest

Array = npt.NDArray[Any]

# Pictures wanted from the set, by what they are for: rows of the predictions.
Selection = dict[str, list[int]]


def select_pictures(run: EvaluatedRun, count: int, threshold: float, seed: int) -> Selection:
    """Which pictures to show, as rows of the predictions.

    Returns:
        `looked_at`: drawn at random among those with a region to show. `missed`: whose least probable class is in
        the picture; `claimed`: whose most probable class is not; both at the threshold, the worst first, one error a
        picture. `localized`: the one with the clearest region, if any has one.
    """
    predictions = run.predictions
    counts, shown = predictions.weights > 0, predictions.labels > 0
    probs = predictions.probs
    lowest = np.where(shown & counts, probs, np.inf).min(axis=1)
    highest = np.where(~shown & counts, probs, -np.inf).max(axis=1)
    missed = [int(row) for row in np.argsort(lowest, kind="stable") if lowest[row] < threshold]
    claimed = [int(row) for row in np.argsort(-highest, kind="stable") if highest[row] >= threshold]
    with_region = [row for row in range(len(predictions)) if regions_of(run, row)]
    drawn = np.random.default_rng(seed).permutation(with_region)[:count]
    return {
        "looked_at": [int(row) for row in drawn],
        "missed": missed[:count],
        "claimed": claimed[:count],
        "localized": [max(with_region, key=lambda row: _clarity(run, row))] if with_region else [],
    }


def read_images(run: EvaluatedRun, data_dir: Path, rows: set[int]) -> dict[int, Array]:
    """Pictures at their own resolution, upright: row of the predictions -> (H, W, 3) uint8."""
    import tensorflow as tf

    from pipelines.decode import decode, turn_upright
    from pipelines.input_pipeline import read_samples

    manifest = load_manifest(data_dir, run.config.dataset)
    wanted = {str(run.predictions.ids[row]): row for row in rows}
    images: dict[int, Array] = {}
    for sample, picture in read_samples(find_split(run.config, manifest, run.split).files):
        if len(images) == len(wanted):
            break
        if sample.id in wanted:
            pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
            images[wanted[sample.id]] = pixels.numpy()
    if len(images) < len(wanted):
        raise ValueError(
            f"{manifest.name} has been built anew since the run was evaluated: pictures are gone."
            f" Run again: {command_on(run.folder, 'evaluate')}"
        )
    return images


def find_class_map(run: EvaluatedRun, image: Array, class_index: int) -> Array:
    """The class activation map of a picture after the sigmoid, (h, w) in [0, 1]."""
    import tensorflow as tf

    from mcar_tf.runs.loading import load_run

    model = load_run(run.folder).model
    size = run.config.image_size
    resized = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
    features, _ = model.global_pass(resized[tf.newaxis], training=False)
    return tf.sigmoid(model.classifier.class_activation_maps(features, [[class_index]]))[0, 0].numpy()


def _clarity(run: EvaluatedRun, row: int) -> float:
    return max(region_clarity(run, row, region) for region in regions_of(run, row))


def region_clarity(run: EvaluatedRun, row: int, region: Region) -> float:
    """How well a region explains the method: of a class that is there, sure, neither tiny nor the whole image."""
    ymin, xmin, ymax, xmax = region.box
    is_there = run.predictions.labels[row, run.classes.index(region.class_name)] > 0
    return float(is_there) + region.global_prob - abs((ymax - ymin) * (xmax - xmin) - 0.25)
