"""How the two-stream model learns: its losses on a batch, and one step of the optimizer.

Letters: B images, S px a side, C classes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mcar_tf.models.arguments import check_choice
from mcar_tf.models.batch_norm import MOVING, give_local_stream_the_statistics
from mcar_tf.models.crop import Crop, crop_and_resize, crop_and_resize_portable
from mcar_tf.models.keras_arguments import (
    Batch,
    as_batch,
    as_metrics,
    as_stream_loss,
    check_batches,
    check_images,
    images_of,
    of_keras,
    update_metric,
)
from mcar_tf.models.keras_internals import MeanOfOneReplica, take_gradients_as_given
from mcar_tf.models.rematerialize import rematerialize
from mcar_tf.models.saving import SavedByKeras

LEARNINGS = ("pair", "single")
FUSIONS = ("max", "mean")


class Streams(NamedTuple):
    """The results of both passes, before the sigmoid.

    Attributes:
        logits: (B, C) of each stream: "global", and "local" if N > 0.
        box_classes: (B, N) int32, the class whose map pointed at the region.
        boxes: (B, N, 4), ymin xmin ymax xmax as fractions of the image.
        region_logits: (B, N, C).
    """

    logits: dict[str, tf.Tensor]
    box_classes: tf.Tensor
    boxes: tf.Tensor
    region_logits: tf.Tensor


class TwoStreamTrainer(SavedByKeras):
    """Compiles, trains and evaluates a two-stream model; the subclass `MCAR` defines the passes."""

    backbone: keras.Model
    num_classes: int
    top_n: int
    fusion: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.crop_form: Crop = crop_and_resize
        self.rematerialized: Callable[[tf.Tensor, bool, bool], tf.Tensor] | None = None
        self.learns_one_look = False

    def learn_one_look(self, alone: bool) -> bool:
        """Train the global stream alone from the next step on, or both.

        The local stream has the same weights and gets the global stream's statistics, so it learns what can be
        learnt without a second look, in a fraction of the time.

        Returns:
            Whether this is a change, which makes Keras trace the training step again.
        """
        if self.learns_one_look == alone:
            return False
        self.learns_one_look = alone
        self.make_train_function(force=True)
        return True

    def global_pass(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Activation map and logits of the whole image."""
        raise NotImplementedError

    def forward(
        self, images: tf.Tensor, training: bool, *, first: tuple[tf.Tensor, tf.Tensor] | None = None
    ) -> Streams:
        """Both passes; `first` is the result of `global_pass`, if that was run before."""
        raise NotImplementedError

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer,
        loss: str | keras.losses.Loss | Callable = "binary_crossentropy",
        metrics: Sequence[Any] | None = None,
        learning: str = "pair",
        jit_compile: bool = False,
        low_memory: bool = False,
        distill: float = 0.0,
        own_region: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Prepare for `fit`.

        Args:
            optimizer: optimizer of all weights.
            loss: loss of one stream: a function of labels, logits and weights, such as
                `mcar_tf.training.losses.binary_cross_entropy`; or one of Keras' losses, by name or as an object. Both
                streams have the same loss. See `mcar_tf.models.keras_arguments.as_stream_loss`.
            metrics: names, functions or metrics of Keras, which get the labels, the fused probabilities, and the
                weights as `sample_weight`, (B, C) each.
            learning: "pair": the sum of both streams' losses (8); "single": the loss of the fused logits (12).
            jit_compile: whether XLA compiles the step; regions are then cut out by `crop_and_resize_portable`.
            low_memory: with the pair loss, train the streams one after the other; and compute the backbone's
                activations again in the backward pass. Gives the same gradients for one more forward pass. With
                `distill` the streams stay together.
            distill: with the pair loss, the share of the global stream's loss that is its cross-entropy with the
                fused probabilities (which get no gradient) in place of the labels.
            own_region: with the pair loss, the share of the local stream's loss in which a class that pointed at a
                region is judged by that region alone. The maximum (3) only reaches one region of N per class, which
                may be another class's.
            **kwargs: arguments of `keras.Model.compile`, but not `weighted_metrics` or `loss_weights`.

        Raises:
            ValueError: an unknown `learning` or `loss`; a share outside [0, 1]; an argument that would do nothing.
        """
        if kwargs.get("weighted_metrics") is not None:
            raise ValueError("`weighted_metrics` does nothing here: `metrics` are weighted. Use that.")
        if kwargs.get("loss_weights") is not None:
            raise ValueError(
                "`loss_weights` does nothing here: both streams' losses count the same. Leave it out."
            )
        check_choice("learning", learning, LEARNINGS)
        for name, share in (("distill", distill), ("own_region", own_region)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"`{name}` must lie in [0, 1]. Received: {share}")
            if share and (learning != "pair" or self.top_n == 0):
                raise ValueError(f"`{name}` does nothing but in the pair loss of two streams. Leave it out.")
        stream_loss = as_stream_loss(loss)
        answer_metrics = as_metrics(metrics, self.num_classes)
        optimizer = of_keras("optimizer", optimizer, keras.optimizers)
        is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        # Keras looks at this model's own policy, which is float32.
        if self.backbone.dtype_policy.name == "mixed_float16" and not is_scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        take_gradients_as_given(self.optimizer)  # `train_step` has averaged them
        self.given_loss = loss
        self.stream_loss = stream_loss
        self.answer_metrics = answer_metrics
        self.learning = learning
        self.distill = distill
        self.own_region = own_region
        self.low_memory = low_memory
        self.one_stream_at_a_time = low_memory and learning == "pair" and self.top_n > 0 and not distill
        self.rematerialized = rematerialize(self.backbone) if low_memory else None
        self.crop_form = crop_and_resize_portable if jit_compile else crop_and_resize
        names = ["loss"] if self.top_n == 0 else ["loss", "global_loss", "local_loss"]
        self.loss_means = {name: MeanOfOneReplica(name=name) for name in names}

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, class_weight: Any = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, on (x, y), on a dataset of (x, y), or on one of the pipeline's dicts.

        Raises:
            ValueError: what `check_batches` refuses; `class_weight`, by which Keras would weight an image by one of
                its classes.
        """
        if class_weight is not None:
            raise ValueError(
                "`class_weight` is for images of one class each. Give `sample_weight` of shape (images, classes), or"
                " a loss made by `mcar_tf.training.losses.weigh_positives`."
            )
        check_batches(self.num_classes, x, y, kwargs.get("sample_weight"))
        validation = kwargs.get("validation_data")
        check_batches(
            self.num_classes, *(validation if isinstance(validation, tuple | list) else [validation])
        )
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Measure as `keras.Model.evaluate` does, on what `fit` takes."""
        check_batches(self.num_classes, x, y, kwargs.get("sample_weight"))
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """Answer as `keras.Model.predict` does, for images or for what `fit` takes."""
        check_images(images_of(x.element_spec if isinstance(x, tf.data.Dataset) else x))
        return super().predict(x, *args, **kwargs)

    def updates_done(self) -> tf.Tensor:
        """How often the weights have been updated: a scalar int32 that seeds the randomness in a step.

        Checkpoints hold it, it is the same on all replicas, and it does not depend on how losses are computed.
        """
        optimizer = getattr(self, "optimizer", None)
        return tf.cast(optimizer.iterations, tf.int32) if optimizer else tf.constant(0)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Running means of the losses over an epoch, and the metrics that `compile` was given."""
        return [*getattr(self, "loss_means", {}).values(), *getattr(self, "answer_metrics", [])]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Train one step on a batch: `image` (B, S, S, 3), `labels` (B, C), `weights` (B, C); or a tuple of them.

        Under a strategy the batch is one replica's equal share of the global batch. Losses, gradients and
        BatchNorm's moving statistics are averaged over the replicas, so after every step all replicas are the same,
        and any of them may be evaluated and saved.
        """
        batch = as_batch(data, self.num_classes)
        if self.one_stream_at_a_time and not self.learns_one_look:
            losses, logits, gradients = self._one_stream_after_the_other(batch)
        else:
            losses, logits, gradients = self._both_streams_at_once(batch)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            losses, gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, [losses, gradients])
            statistics = [v for v in self.non_trainable_variables if v.path.split("/")[-1] in MOVING]
            means = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, [tf.identity(v.value) for v in statistics]
            )
            for statistic, mean in zip(statistics, means, strict=True):
                statistic.assign(mean)
        if self.learns_one_look:
            give_local_stream_the_statistics(self.backbone)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self._update_metrics(batch, losses, logits, tf.shape(batch["labels"])[0])

    def _both_streams_at_once(self, batch: Batch) -> tuple[dict[str, tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        """All losses, the fused logits, and the gradients of the loss that is minimized."""
        with tf.GradientTape() as tape:
            losses, logits = self.losses_and_logits(batch, training=True)
            scaled = self.optimizer.scale_loss(losses["loss"])
        return losses, logits, tape.gradient(scaled, self.trainable_weights)

    def _one_stream_after_the_other(
        self, batch: Batch
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, list[tf.Tensor]]:
        """The same for the pair loss of two streams, with one stream's activations in memory at a time."""
        with tf.GradientTape() as tape:
            first = self.global_pass(batch["image"], training=True)
            global_loss = self._loss_on(batch, first[1])
            scaled = self.optimizer.scale_loss(global_loss)
        of_global = tape.gradient(scaled, self.trainable_weights)
        # Otherwise a graph would run the local stream in parallel with the global stream's backward pass.
        with tf.control_dependencies(of_global):
            images = tf.identity(batch["image"])
        with tf.GradientTape() as tape:
            streams = self.forward(images, training=True, first=first)
            local_loss = self._local_loss(batch, streams)
            scaled = self.optimizer.scale_loss(local_loss)
        of_local = tape.gradient(scaled, self.trainable_weights)
        losses = {"loss": global_loss + local_loss, "global_loss": global_loss, "local_loss": local_loss}
        gradients = [one + other for one, other in zip(of_global, of_local, strict=True)]
        return losses, fuse_logits(streams, self.fusion), gradients

    def losses_of(self, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        """The loss that is minimized and each stream's loss, all scalars."""
        return self.losses_and_logits(batch, training)[0]

    def losses_and_logits(self, batch: Batch, training: bool) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The losses of `losses_of`, and the fused logits, (B, C)."""
        if training and self.learns_one_look:
            logits = self.global_pass(batch["image"], training)[1]
            loss = self._loss_on(batch, logits)
            return {"loss": loss, "global_loss": loss}, logits
        streams = self.forward(batch["image"], training)
        losses = {"global_loss": self._global_loss(batch, streams)}
        if self.top_n:
            losses["local_loss"] = self._local_loss(batch, streams)
        logits = fuse_logits(streams, self.fusion)
        if self.learning == "pair":
            total = tf.add_n(list(losses.values()))
        else:
            total = self._loss_on(batch, logits)
        return {"loss": total} | losses, logits

    def _global_loss(self, batch: Batch, streams: Streams) -> tf.Tensor:
        logits = streams.logits["global"]
        loss = self._loss_on(batch, logits)
        if not self.distill:
            return loss
        taught = tf.stop_gradient(tf.sigmoid(fuse_logits(streams, self.fusion)))
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=taught, logits=logits)
        return (1.0 - self.distill) * loss + self.distill * tf.reduce_mean(batch["weights"] * entropy)

    def _local_loss(self, batch: Batch, streams: Streams) -> tf.Tensor:
        loss = self._loss_on(batch, streams.logits["local"])
        if not self.own_region:
            return loss
        of_own = self._loss_on(batch, own_region_logits(streams))
        return (1.0 - self.own_region) * loss + self.own_region * of_own

    def _loss_on(self, batch: Batch, logits: tf.Tensor) -> tf.Tensor:
        return self.stream_loss(batch["labels"], logits, batch["weights"])

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Losses of a batch, without training. Under a strategy, means over the images of all replicas together."""
        batch = as_batch(data, self.num_classes)
        losses, logits = self.losses_and_logits(batch, training=False)
        images = tf.shape(batch["labels"])[0]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # In the last batch a replica may have fewer images than another, or none: its mean is then NaN.
            share = tf.cast(images, tf.float32)
            sums = {name: tf.math.multiply_no_nan(loss, share) for name, loss in losses.items()}
            sums, images = context.all_reduce(tf.distribute.ReduceOp.SUM, [sums, share])
            losses = {name: total / images for name, total in sums.items()}
        return self._update_metrics(batch, losses, logits, images)

    def predict_step(self, data: Any) -> dict[str, tf.Tensor]:
        """`call`'s outputs for a batch or for images alone."""
        return self(images_of(data), training=False)

    def _update_metrics(
        self, batch: Batch, losses: dict[str, tf.Tensor], logits: tf.Tensor, images: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Update the means of the losses, which stand for so many `images`, and the metrics."""
        for name, mean in self.loss_means.items():
            if name in losses:
                mean.update_state(losses[name], sample_weight=images)
        for metric in self.answer_metrics:
            update_metric(metric, batch["labels"], tf.sigmoid(logits), batch["weights"])
        return {metric.name: metric.result() for metric in self.metrics}


def check_fusion(fusion: str) -> None:
    """Raise `ValueError` for an unknown fusion."""
    check_choice("fusion", fusion, FUSIONS)


def fuse_logits(streams: Streams, fusion: str) -> tf.Tensor:
    """Logits of the fused probabilities, (B, C).

    "max": their maximum, which gives the maximum of the probabilities (11), since the sigmoid is monotonic; "mean":
    their mean.
    """
    logits = list(streams.logits.values())
    if fusion == "max":
        return functools.reduce(tf.maximum, logits)
    return tf.add_n(logits) / len(logits)


def fuse_probs(global_probs: tf.Tensor, local_probs: tf.Tensor, fusion: str) -> tf.Tensor:
    """Fuse both streams' probabilities, for when their logits are not known."""
    if fusion == "max":
        return tf.maximum(global_probs, local_probs)
    tiny = 1e-30  # fuses a certain yes (1) and a certain no (0) to one half
    yes = tf.sqrt(global_probs * local_probs) + tiny
    no = tf.sqrt((1.0 - global_probs) * (1.0 - local_probs)) + tiny
    return yes / (yes + no)


def own_region_logits(streams: Streams) -> tf.Tensor:
    """Local stream's logits (B, C): a class with its own region has that region's logit, else the maximum (3)."""
    local = streams.logits["local"]
    is_own = tf.one_hot(streams.box_classes, local.shape[-1])  # (B, N, C); a class has at most one region
    own = tf.reduce_sum(is_own * streams.region_logits, axis=1)
    return tf.where(tf.reduce_any(is_own > 0.0, axis=1), own, local)
