"""What `compile`, `fit` and `predict` of a two-stream model are given, in the form that a training step takes.

Letters: B images, S px a side, C classes.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

# Keras losses that compare the classes of an image with each other, as if it showed only one.
OF_ONE_CLASS = ("categorical", "cosine", "kl_divergence", "circle", "ctc")
KEPT_REDUCTIONS = (None, "none", "mean", "sum_over_batch_size")

Batch = dict[str, tf.Tensor]
# labels (B, C), logits (B, C), weights (B, C) -> scalar
StreamLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def as_stream_loss(loss: str | keras.losses.Loss | Callable) -> StreamLoss:
    """The loss of one stream, made of any kind of loss.

    Args:
        loss: a function of labels, logits and weights, which is returned as it is; or one of Keras' kind: a name, a
            `keras.losses.Loss`, or a function of labels and probabilities. The stream's loss is then the weighted
            sum of its values, one for each label, divided by batch x classes. It gets probabilities; or logits, if
            it was made with `from_logits=True`, or is named and can take them.

    Raises:
        ValueError: no such loss; a loss for images of one class each; a `reduction` that would not be used.
    """
    from_logits = False
    if isinstance(loss, keras.losses.Loss):
        name, of_labels = loss.name, loss.call
        from_logits = bool(loss.get_config().get("from_logits"))
        if loss.reduction not in KEPT_REDUCTIONS:
            raise ValueError(
                f"`loss` is summed over images and classes and divided by their number: leave its `reduction` out."
                f" Received: {loss.reduction!r}"
            )
    elif isinstance(loss, str):
        name, of_labels = loss, keras.losses.get(loss)
        from_logits = "from_logits" in inspect.signature(of_labels).parameters
        if from_logits:
            of_labels = functools.partial(of_labels, from_logits=True)
    elif callable(loss) and _required(loss) == 2:
        name, of_labels = getattr(loss, "__name__", "loss"), loss
    elif callable(loss):
        return loss
    else:
        raise ValueError(f"`loss` must be a name, a Keras loss or a function. Received: {loss!r}")
    if any(word in name for word in OF_ONE_CLASS):
        raise ValueError(
            f"`loss` must judge each class by itself, as binary_crossentropy does, because an image may show several."
            f" Received: {name}"
        )

    def stream_loss(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        answers = logits if from_logits else tf.sigmoid(logits)
        # Keras averages over the last axis. With an axis of one number there, each label keeps its own value.
        values = of_labels(labels[..., tf.newaxis], answers[..., tf.newaxis])
        if values.shape.rank == 3:
            values = tf.squeeze(values, axis=-1)
        if values.shape.rank != 2:
            raise ValueError(
                f"`loss` must give one number for each image and class. {name} gives shape {tuple(values.shape)};"
                " write it as a function of labels, logits and weights, (B, C) each, that gives a scalar."
            )
        return tf.reduce_mean(weights * values)

    return stream_loss


def _required(function: Callable) -> int:
    """How many arguments a function must be given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(one.kind in kinds and one.default is one.empty for one in parameters)


def as_metrics(metrics: Sequence[Any] | None, num_classes: int) -> list[keras.metrics.Metric]:
    """Keras metrics that have all their variables, from names, functions and metrics.

    Args:
        metrics: names, functions of labels and probabilities, or metrics.
        num_classes: C.

    Raises:
        ValueError: no such metric, or one for images of one class each.
    """
    made = [_as_metric(metric) for metric in metrics or []]
    nothing = tf.zeros([1, num_classes])

    def make_variables() -> None:
        for metric in made:
            update_metric(metric, nothing, nothing, nothing)

    if made:
        tf.distribute.get_strategy().run(make_variables)
    for metric in made:
        metric.reset_state()
    return made


def _as_metric(metric: Any) -> keras.metrics.Metric:
    if metric in ("accuracy", "acc"):
        metric = keras.metrics.BinaryAccuracy(name=metric)
    found = keras.metrics.get(metric)
    name = getattr(found, "__name__", type(found).__name__)
    if any(word in name.lower() for word in OF_ONE_CLASS):
        raise ValueError(
            "`metrics` must judge each class by itself, as binary_accuracy does, because an image may show several."
            f" Received: {name}"
        )
    if isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(found, name=name)


def update_metric(
    metric: keras.metrics.Metric, labels: tf.Tensor, probs: tf.Tensor, weights: tf.Tensor
) -> None:
    """Show a metric a batch, (B, C) each. Metrics that average over the last axis average over labels instead."""
    if isinstance(metric, keras.metrics.MeanMetricWrapper):
        labels, probs = labels[..., tf.newaxis], probs[..., tf.newaxis]  # each label keeps its own value
    metric.update_state(labels, probs, sample_weight=weights)


def as_batch(data: Any, num_classes: int) -> Batch:
    """A batch of `image` (B, S, S, 3), `labels` (B, C) and `weights` (B, C), all float32.

    Args:
        data: what Keras hands to a step: a dict of these, where `weights` may be missing; or a tuple of images,
            labels and perhaps weights, (B, C) or (B,).
        num_classes: C.

    Raises:
        ValueError: labels are missing or of another shape.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(images, dict):
        given = images
        images, labels, weights = given.get("image"), given.get("labels"), given.get("weights")
    if images is None or labels is None:
        raise ValueError(
            "Training and evaluation need images and labels: give `x` and `y`, a dataset of (x, y), or one of dicts"
            " with `image` and `labels`."
        )
    labels = tf.cast(labels, tf.float32)
    if labels.shape.rank is not None and (labels.shape.rank != 2 or labels.shape[-1] != num_classes):
        raise ValueError(
            f"Labels must have shape (images, {num_classes}): a column of 0 and 1 for each class. Received:"
            f" {tuple(labels.shape)}"
        )
    weights = tf.ones_like(labels) if weights is None else tf.cast(weights, tf.float32)
    if weights.shape.rank == 1:
        weights = tf.broadcast_to(weights[:, tf.newaxis], tf.shape(labels))
    return {"image": tf.cast(images, tf.float32), "labels": labels, "weights": weights}


def images_of(data: Any) -> tf.Tensor:
    """The images of what Keras hands to `predict_step`: a batch as `as_batch` takes it, or images alone."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return images["image"] if isinstance(images, dict) else images
