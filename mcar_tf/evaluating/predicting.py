"""Runs a model over a dataset and collects its predictions, for fit, evaluate and calibrate."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from mcar_tf.evaluating.predictions import Flags, FusedProbs, Predictions, check_numbers
from pipelines.input_pipeline import Difficult, make_eval_dataset
from pipelines.manifest import Portion, Split
from pipelines.verify import naming_shards

Array = npt.NDArray[Any]

OUTPUTS = ("global_probs", "local_probs", "probs", "boxes", "box_classes", "box_probs")


def predict_split(
    model: Any,
    split: Split | Portion,
    *,
    batch_size: int,
    difficult: Difficult = "ignore",
    flip: bool = False,
) -> Predictions:
    """Run a model over the pictures of a prepared split, with a progress bar.

    Args:
        model: an `mcar_tf.models.mcar.MCAR` for the split's classes.
        split: of a prepared set.
        batch_size: images at a time.
        difficult: what classes count as that an image shows only in difficult objects.
        flip: as for `predict_dataset`.

    Raises:
        ValueError: a shard is damaged or gone, or the shards hold more or fewer images than the set says.
    """
    dataset = make_eval_dataset(
        split.files,
        num_classes=model.num_classes,
        image_size=model.image_size,
        batch_size=batch_size,
        difficult=difficult,
    )
    with naming_shards(split.files):
        predictions = predict_dataset(model, dataset, flip=flip, images=split.examples)
    if len(predictions) != split.examples:
        raise ValueError(
            f"The set says that the split has {split.examples} images, its files hold {len(predictions)}."
            " Build the set anew: pipelines.build --overwrite."
        )
    return predictions


def predict_dataset(
    model: keras.Model, dataset: tf.data.Dataset, *, flip: bool = False, images: int | None = None
) -> Predictions:
    """Run a model over a dataset once. Every image counts once, however many replicas the model has.

    Args:
        model: a model with the outputs of `mcar_tf.models.mcar.MCAR`.
        dataset: made by `pipelines.input_pipeline.make_eval_dataset`; its last batch may be partial.
        flip: average each stream's probabilities over the image and its mirror image, then fuse by the
            model's rule. Regions stay those of the image.
        images: expected number of images, for a progress bar; None for no bar.

    Raises:
        ValueError: the dataset is empty, or the model's probabilities are NaN.
    """
    strategy = model.distribute_strategy
    dataset = strategy.experimental_distribute_dataset(dataset)
    predict = _compiled_predict(model, dataset.element_spec["image"], flip)
    # In a pipe or a log file, write a line every 30 s instead of ten updates per second.
    interval = 0.1 if sys.stderr.isatty() else 30
    bar = tqdm(
        total=images,
        desc="predicting",
        unit=" images",
        disable=images is None,
        mininterval=interval,
        leave=False,
    )
    collected = _Collected(images or 1024)
    with bar:
        for batch in dataset:
            outputs = predict(batch["image"])
            found = {name: outputs[name] for name in OUTPUTS}
            found |= {name: batch[name] for name in ("labels", "weights", "id")}
            collected.add({name: _collect(strategy, value) for name, value in found.items()})
            bar.update(collected.count - bar.n)
    if not collected.count:
        raise ValueError("The dataset holds no images: there is nothing to predict.")
    predictions = collected.predictions()
    streams = {"global_probs": predictions.global_probs, "local_probs": predictions.local_probs}
    check_numbers(streams, predictions.ids)
    return predictions


class _Collected:
    """Appends batches to arrays that grow in place, so that no second copy of the predictions takes memory.

    Args:
        expected: expected number of images; more are possible.
    """

    def __init__(self, expected: int) -> None:
        self.count, self.expected, self.classes = 0, expected, 0
        self.ids: list[str] = []
        self.arrays: dict[str, Array] = {}

    def add(self, batch: dict[str, Array]) -> None:
        """Append a batch."""
        self.ids += [identifier.decode() for identifier in batch.pop("id")]
        probs = batch.pop("probs")
        for name in ("labels", "weights"):
            batch[name] = Flags.of(batch[name]).bits
        rows = slice(self.count, len(self.ids))
        self.count = rows.stop
        if not self.arrays:
            self.classes = probs.shape[1]
            self.arrays = {n: np.empty((self.expected, *v.shape[1:]), v.dtype) for n, v in batch.items()}
            self.fused = FusedProbs(self.arrays["global_probs"], self.arrays["local_probs"])
        if self.count > self.expected:
            self._resize(max(self.count, self.expected * 5 // 4))
        for name, values in batch.items():
            self.arrays[name][rows] = values
        self.fused.put(rows, probs)

    def predictions(self) -> Predictions:
        """The predictions of all batches."""
        self._resize(self.count)
        labels, weights = (Flags(self.arrays.pop(name), self.classes) for name in ("labels", "weights"))
        return Predictions(np.array(self.ids), labels, weights, probs=self.fused.kept, **self.arrays)

    def _resize(self, rows: int) -> None:
        kept = [] if self.fused.kept is None else [self.fused.kept]
        for array in [*self.arrays.values(), *kept]:
            array.resize((rows, *array.shape[1:]), refcheck=False)  # in place, without a copy
        self.expected = rows


@functools.lru_cache(maxsize=2)  # fit evaluates after every epoch: trace only once
def _compiled_predict(model: keras.Model, images_spec: tf.TypeSpec, flip: bool) -> Callable[[Any], Any]:
    """A function that runs the model on a distributed batch, as one graph for batches of any size."""
    fuse = getattr(model, "fuse_probs", tf.maximum)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(images, training=False)
        if not flip:
            return outputs
        return _average_streams(outputs, model(images[:, :, ::-1], training=False), fuse)

    def predict_share(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A replica may get no image of the last batch, but not every op accepts an empty batch: add a black image.
        size = tf.shape(images)[0]
        black = tf.zeros([tf.maximum(1 - size, 0), *images.shape[1:]])
        return {name: value[:size] for name, value in predict(tf.concat([images, black], axis=0)).items()}

    strategy = model.distribute_strategy
    step = predict if strategy.num_replicas_in_sync == 1 else predict_share
    return tf.function(
        lambda images: strategy.run(step, args=(images,)), input_signature=[images_spec], autograph=False
    )


def _average_streams(
    outputs: dict[str, tf.Tensor], mirrored: dict[str, tf.Tensor], fuse: Callable[..., tf.Tensor]
) -> dict[str, tf.Tensor]:
    averaged = {name: (outputs[name] + mirrored[name]) / 2 for name in ("global_probs", "local_probs")}
    return outputs | averaged | {"probs": fuse(averaged["global_probs"], averaged["local_probs"])}


def _collect(strategy: tf.distribute.Strategy, value: Any) -> Array:
    """Join the replicas' shares of a batch, in the batch's order."""
    return np.concatenate([share.numpy() for share in strategy.experimental_local_results(value)])
