"""What `compile`, `fit` and `predict` of a two-stream model are given, in the form that a training step takes.

Letters: B images, S px a side, C classes.
"""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.words import nearest

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
        name, of_labels = loss, of_keras("loss", loss, keras.losses)
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


def of_keras(argument: str, given: Any, home: types.ModuleType, *more: str) -> Any:
    """What one of Keras' modules has by a name.

    Args:
        argument: which argument it is, for the error.
        given: the name, or anything else that the module's `get` takes.
        home: the module, such as `keras.losses`.
        *more: names that the argument may have beside the module's.

    Raises:
        ValueError: there is nothing of that name; tells the nearest.
    """
    try:
        return home.get(given)
    except ValueError:
        known = [name for name in dir(home) if not any(word in name.lower() for word in OF_ONE_CLASS)]
        near = nearest(str(given), [*known, *more])
        raise ValueError(f"`{argument}` must be one of Keras'. Received: {given!r}.{near}") from None


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
    found = of_keras("metrics", metric, keras.metrics, "accuracy")
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
        ValueError: labels are missing; something is of another shape.
    """
    images, labels, weights = _parts_of(data)
    _check_shapes(images, labels, weights, num_classes)
    labels = tf.cast(labels, tf.float32)
    weights = tf.ones_like(labels) if weights is None else tf.cast(weights, tf.float32)
    if weights.shape.rank != 2:  # not known after `fit` has been given weights of both shapes
        weights = tf.broadcast_to(tf.reshape(weights, [tf.shape(labels)[0], -1]), tf.shape(labels))
    return {"image": tf.cast(images, tf.float32), "labels": labels, "weights": weights}


def check_batches(num_classes: int, x: Any, y: Any = None, sample_weight: Any = None) -> None:
    """Refuse what no step can learn from or be measured on, before Keras makes a graph: the error is then one line.

    Labels outside [0, 1], with which a loss falls without end, are found in arrays alone. A dataset's are not known
    before they are read, and to look at each batch would cost every step of every training.

    Args:
        num_classes: C.
        x: images, a dataset or whatever else `fit` takes.
        y: labels.
        sample_weight: weights of images or labels.

    Raises:
        ValueError: labels are missing or outside [0, 1]; something is of another shape.
    """
    if isinstance(x, tf.data.Dataset):
        _check_shapes(*_parts_of(x.element_spec), num_classes)
    elif hasattr(x, "shape") or isinstance(x, dict | list | tuple):
        images, labels, weights = _parts_of((x, y, sample_weight))
        for name, given in (("x", images), ("y", labels), ("sample_weight", weights)):
            if given is not None and not hasattr(given, "shape"):  # Keras would print all images
                raise ValueError(f"`{name}` must be an array or a tensor. Received: {type(given).__name__}")
        _check_shapes(images, labels, weights, num_classes)
        values = np.asarray(labels)
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                "Labels must lie in [0, 1]: 1 where an image shows the class, 0 where it does not. Received: from"
                f" {values.min():g} to {values.max():g}"
            )


def check_images(images: Any) -> None:
    """Refuse images of a shape that no model takes: an array, a tensor or what describes one."""
    shape = _shape_of(images)
    if shape.rank is not None and (shape.rank != 4 or shape[-1] not in (3, None)):
        raise ValueError(
            "Images must have shape (images, height, width, 3), RGB in [0, 255]; grey ones have three equal channels."
            f" Received: {tuple(shape)}"
        )


def images_of(data: Any) -> Any:
    """The images of what Keras hands to `predict_step`: a batch as `as_batch` takes it, or images alone."""
    return _parts_of(data)[0]


def _parts_of(data: Any) -> tuple[Any, Any, Any]:
    """Images, labels and weights of a batch, or what describes them; None for what is missing."""
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(images, dict):
        return images.get("image"), images.get("labels"), images.get("weights")
    return images, labels, weights


def _check_shapes(images: Any, labels: Any, weights: Any, num_classes: int) -> None:
    """Refuse shapes that no step can take, as far as they are known."""
    if images is None or labels is None:
        raise ValueError(
            "Training and evaluation need images and labels: give `x` and `y`, a dataset of (x, y), or one of dicts"
            " with `image` and `labels`."
        )
    check_images(images)
    shape = _shape_of(labels)
    if shape.rank is not None and (shape.rank != 2 or shape[-1] not in (num_classes, None)):
        raise ValueError(
            f"Labels must have shape (images, {num_classes}): a column of 0 and 1 for each class. Received:"
            f" {tuple(shape)}"
        )
    shape = _shape_of(weights)
    if shape.rank is not None and (
        shape.rank not in (1, 2) or shape[1:] not in ([], [1], [num_classes], [None])
    ):
        raise ValueError(
            f"Weights must have shape (images,) or (images, {num_classes}): one for each image, or for each of its"
            f" labels. Received: {tuple(shape)}"
        )


def _shape_of(given: Any) -> tf.TensorShape:
    return tf.TensorShape(getattr(given, "shape", None))
