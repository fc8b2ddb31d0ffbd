"""Measures how often a model's answers change between variants of the same pictures.

A picture that was rounded, resized by another library or saved again still shows the same things. A model whose
decisions change with it is not steady.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from mcar_tf.evaluating.columns import VARIANT_TITLES

AS_IT_IS = "as_it_is"
QUANTILES = (50, 90, 99)


def measure_steadiness(
    model: keras.Model,
    batches: Iterable[Mapping[str, tf.Tensor]],
    thresholds: Sequence[float],
    images: int | None = None,
) -> dict[str, dict[str, float]]:
    """How each variant of the pictures changes a model's fused answers.

    Args:
        model: a model with the outputs of `mcar_tf.models.mcar.MCAR`.
        batches: made by `pipelines.variants.make_variants_dataset`.
        thresholds: C probabilities at which each class is predicted.
        images: expected number of images, for a progress bar; None for no bar.

    Returns:
        Per key of `VARIANT_TITLES`: `changed`, the share of pictures whose set of labels changes, in [0, 1], and
        `change_50`, `change_90`, `change_99`: quantiles, over the pictures, of a picture's largest change of a
        probability.
    """
    predict = tf.function(
        lambda pictures: model(pictures, training=False)["probs"], reduce_retracing=True, autograph=False
    )
    probs: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (AS_IT_IS, *VARIANT_TITLES)}
    with tqdm(total=images, desc="steadiness", unit=" images", disable=images is None, leave=False) as bar:
        for batch in batches:
            for name, found in probs.items():
                found.append(predict(batch[name]).numpy())
            bar.update(len(probs[AS_IT_IS][-1]))
    as_it_is = np.concatenate(probs.pop(AS_IT_IS))
    return {
        name: compare_answers(as_it_is, np.concatenate(found), thresholds) for name, found in probs.items()
    }


def compare_answers(
    before: npt.NDArray[Any], after: npt.NDArray[Any], thresholds: Sequence[float]
) -> dict[str, float]:
    """How two arrays of probabilities (N, C) for the same pictures differ; results as in `measure_steadiness`."""
    limits = np.asarray(thresholds)
    changed = ((before >= limits) != (after >= limits)).any(axis=1)
    largest = np.abs(before - after).max(axis=1)
    return {"changed": float(changed.mean())} | {
        f"change_{q}": float(np.percentile(largest, q)) for q in QUANTILES
    }


def steadiness_lines(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table of what `measure_steadiness` returned, as lines to print."""
    title, heads = "steadiness", ("labels change", *(f"{q} %" for q in QUANTILES))
    width = max(map(len, [title, *VARIANT_TITLES.values()]))
    lines = [f"{title:{width}}" + "".join(f"{head:>15}" for head in heads)]
    for name, values in measured.items():
        cells = [f"{100 * values['changed']:.1f} %", *(f"{values[f'change_{q}']:.4f}" for q in QUANTILES)]
        lines.append(f"{VARIANT_TITLES[name]:{width}}" + "".join(f"{cell:>15}" for cell in cells))
    return [
        *lines,
        "labels change: in how many pictures; then the largest change of a probability in a picture: no more than"
        " this in so many % of them.",
    ]
