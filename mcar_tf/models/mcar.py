"""The two-stream model: images in, what is in them and where it looked out (Fig. 1).

Letters: B images, S px a side, C classes, N regions, h x w cells of an activation map of d channels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.models.backbone_table import check_backbone
from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.crop import crop_and_resize, crop_and_resize_portable
from mcar_tf.models.heads import Classifier, check_pooling, global_pool
from mcar_tf.models.localizer import check_tau, localize
from mcar_tf.models.rematerialize import rematerialize

SELECTIONS = ("top", "bottom", "random")
LEARNINGS = ("pair", "single")
MOVING = ("moving_mean", "moving_variance")  # names of BatchNorm's statistics

Batch = dict[str, tf.Tensor]
Outputs = dict[str, tf.Tensor]
# labels (B, C), logits (B, C), weights (B, C) -> scalar
StreamLoss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def build_mcar(
    num_classes: int,
    backbone: str = "mobilenet_v2",
    image_size: int = 256,
    pooling: str = "gwp",
    top_n: int = 4,
    tau: float = 0.5,
    weights: str | Path | None = "imagenet",
    *,
    backbone_width: float = 1.0,
    gwp_lambda: float = 0.5,
    local_size: int | None = None,
    selection: str = "top",
    selection_seed: int = 0,
) -> "MCAR":
    """Build a two-stream model with weights.

    Args:
        num_classes: C.
        backbone: a key of `mcar_tf.models.backbone_table.BACKBONES`.
        image_size: side S of the images in px. The weights fit any size.
        pooling: "gap", "gmp" or "gwp" (13-15).
        top_n: regions an image, N, from 0 (the plain backbone) to C.
        tau: localization threshold in [0, 1); 0 makes every region the whole image.
        weights: of the backbone: "imagenet", the path of a weights file, or None for random ones.
        backbone_width: factor on the backbone's channels.
        gwp_lambda: weight of the average in GWP, in [0, 1].
        local_size: side of the regions' crops in px; None: `image_size`.
        selection: which classes' maps become regions: those of highest global probability ("top"), of lowest
            ("bottom"), or any ("random"), as in Table V.
        selection_seed: of "random".

    Raises:
        ValueError: an argument outside its range, before anything is built.
        FileNotFoundError: weights that can't be had.
    """
    check_backbone(
        backbone,
        backbone_width=backbone_width,
        image_size=image_size,
        local_size=local_size,
        weights=weights,
    )
    check_pooling(pooling, gwp_lambda)
    check_tau(tau)
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: {num_classes}")
    if not 0 <= top_n <= num_classes:
        raise ValueError(f"`top_n` must lie in [0, {num_classes}], the number of classes. Received: {top_n}")
    if selection not in SELECTIONS:
        raise ValueError(f"`selection` must be one of {', '.join(SELECTIONS)}. Received: {selection!r}")
    return MCAR(
        build_backbone(backbone, weights=weights, width=backbone_width),
        num_classes,
        image_size=image_size,
        pooling=pooling,
        gwp_lambda=gwp_lambda,
        top_n=top_n,
        tau=tau,
        local_size=local_size,
        selection=selection,
        selection_seed=selection_seed,
    )


class MCAR(keras.Model):
    """Looks at the whole image, then at N regions of it with the same network. `build_mcar` checks its arguments.

    `call` gives a dict:

    | output | shape | |
    |---|---|---|
    | `probs` | (B, C) | class-wise maximum of the two streams |
    | `global_probs`, `local_probs` | (B, C) | of each stream; equal where N = 0 |
    | `boxes` | (B, N, 4) | ymin xmin ymax xmax as fractions of the image |
    | `box_classes` | (B, N) int32 | whose map pointed at the region |
    | `box_probs` | (B, N) | that class's probability in the region |

    All float32 but `box_classes`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        *,
        image_size: int,
        pooling: str,
        gwp_lambda: float,
        top_n: int,
        tau: float,
        local_size: int | None,
        selection: str,
        selection_seed: int,
    ) -> None:
        # Mixed precision is the backbone's. Here images, maps and probabilities stay float32, which the lower
        # precisions' few digits would spoil: bfloat16 can't tell 256 levels apart.
        super().__init__(name="mcar", dtype="float32")
        self.backbone = backbone
        self.classifier = Classifier(num_classes)
        self.classifier.build((None, backbone.output_shape[-1]))
        self.num_classes = num_classes
        self.image_size = image_size
        self.pooling = pooling
        self.gwp_lambda = gwp_lambda
        self.top_n = top_n
        self.tau = tau
        self.local_size = local_size or image_size
        self.selection = selection
        self.selection_seed = selection_seed
        # TFLite and XLA have no op for crops: whoever goes there sets the portable form.
        self.crop = crop_and_resize
        self.rematerialized: Callable[[tf.Tensor, bool], tf.Tensor] | None = None
        self.built = True

    # ------------------------------------------------------------------ forward

    def call(self, images: tf.Tensor, training: bool = False, boxes: tf.Tensor | None = None) -> Outputs:
        """Both passes and their fusion.

        Args:
            images: (B, S, S, 3), RGB in [0, 255].
            training: whether BatchNorm normalizes with each pass's own batch.
            boxes: (B, N, 4) in place of the localizer's own, to compare two forms of the model.
        """
        features, global_logits = self.global_pass(images, training)
        global_probs = tf.sigmoid(global_logits)
        box_classes = self.select_classes(global_logits)
        if self.top_n == 0:
            local_logits, local_probs = global_logits, global_probs
            boxes = tf.zeros([tf.shape(images)[0], 0, 4])
            box_probs = tf.zeros([tf.shape(images)[0], 0])
        else:
            if boxes is None:
                boxes = self.find_boxes(features, box_classes, images)
            region_logits = self.local_pass(images, boxes, training)  # (B, N, C)
            local_logits = tf.reduce_max(region_logits, axis=1)  # (3)
            local_probs = tf.sigmoid(local_logits)
            own_class = tf.one_hot(box_classes, self.num_classes)
            box_probs = tf.reduce_sum(own_class * tf.sigmoid(region_logits), axis=-1)
        return {
            "probs": tf.maximum(global_probs, local_probs),
            "global_probs": global_probs,
            "local_probs": local_probs,
            "boxes": boxes,
            "box_classes": box_classes,
            "box_probs": box_probs,
        }

    def global_pass(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Activation map A, (B, h, w, d), and global logits x (1), (B, C)."""
        features = self._look(tf.cast(images, tf.float32), training)
        pooled = global_pool(features, self.pooling, self.gwp_lambda)
        return features, self.classifier(pooled)

    def select_classes(self, global_logits: tf.Tensor) -> tf.Tensor:
        """The N classes whose maps become regions: (B, C) -> (B, N) int32."""
        if self.selection == "top":
            ranked = global_logits
        elif self.selection == "bottom":
            ranked = -global_logits
        else:
            # What is in the batch seeds the draw: repeatable, with no state to keep, save or distribute.
            content = tf.reduce_sum(tf.bitcast(global_logits, tf.int32))
            ranked = tf.random.stateless_uniform(
                tf.shape(global_logits), seed=tf.stack([self.selection_seed, content])
            )
        return tf.math.top_k(tf.stop_gradient(ranked), self.top_n).indices

    def find_boxes(self, features: tf.Tensor, box_classes: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """From global to local (section III-B): the selected classes' maps point at one region each, (B, N, 4)."""
        maps = self.classifier.class_activation_maps(features, box_classes)
        shape = tf.shape(images)
        boxes = localize(maps, images.shape[1] or shape[1], images.shape[2] or shape[2], self.tau)
        return tf.stop_gradient(boxes)

    def local_pass(self, images: tf.Tensor, boxes: tf.Tensor, training: bool) -> tf.Tensor:
        """The same network on every region: logits (B, N, C)."""
        size = self.local_size
        crops = tf.stop_gradient(self.crop(images, boxes, size))
        features = self._look(tf.reshape(crops, [-1, size, size, 3]), training)
        logits = self.classifier(global_pool(features, self.pooling, self.gwp_lambda))
        return tf.reshape(logits, [-1, boxes.shape[1], self.num_classes])

    def _look(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        if training and self.rematerialized:
            return self.rematerialized(images, training)
        return self.backbone(images, training=training)

    # ----------------------------------------------------------------- training

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        loss: StreamLoss,
        learning: str = "pair",
        jit_compile: bool = False,
        low_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        """Make ready for `fit`.

        Args:
            optimizer: of all weights.
            loss: of one stream, `mcar_tf.training.losses.binary_cross_entropy`.
            learning: "pair": the sum of both streams' losses (8); "single": that of the fused logits (12).
            jit_compile: whether XLA compiles the step; crops are then cut by the portable form.
            low_memory: with the pair loss, train the streams one after the other; and compute the backbone's
                activations again in the backward pass. The same gradients for one more forward pass.
            **kwargs: of `keras.Model.compile`, but for `metrics`, `weighted_metrics` and `loss_weights`.

        Raises:
            ValueError: an unknown `learning`; an argument that would do nothing.
        """
        for name in ("metrics", "weighted_metrics", "loss_weights"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` does nothing here: the running means are those of the losses. Leave it out."
                )
        if learning not in LEARNINGS:
            raise ValueError(f"`learning` must be one of {', '.join(LEARNINGS)}. Received: {learning!r}")
        if self.backbone.dtype_policy.name == "mixed_float16":  # Keras looks at this model's own policy
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        # `train_step` gives the optimizer gradients that are already averaged, so that clipping, accumulation and
        # the search for overflows see those of the whole batch: Keras would do all three on each replica's share, and
        # then sum.
        inner: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        inner._all_reduce_sum_gradients = list
        self.stream_loss = loss
        self.learning = learning
        self.crop = crop_and_resize_portable if jit_compile else crop_and_resize
        self.low_memory = low_memory
        self.rematerialized = rematerialize(self.backbone) if low_memory else None
        names = ["loss"] if self.top_n == 0 else ["loss", "global_loss", "local_loss"]
        self.loss_means = {name: MeanOfOneReplica(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Running means of the losses over an epoch."""
        return list(getattr(self, "loss_means", {}).values())

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step on a batch: `image` (B, S, S, 3), `labels` (B, C), `weights` (B, C).

        Under a strategy this is one replica's part, of an equal share of the global batch. Losses, gradients and
        BatchNorm's moving statistics are averaged over the replicas, so after every step all replicas are the same,
        and any of them may be evaluated and saved.
        """
        weights = self.trainable_weights
        if self.low_memory and self.learning == "pair" and self.top_n:
            losses, gradients = self._one_stream_after_the_other(batch)
        else:
            with tf.GradientTape() as tape:
                losses = self.losses_of(batch, training=True)
                scaled = self.optimizer.scale_loss(losses["loss"])
            gradients = tape.gradient(scaled, weights)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            losses, gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, [losses, gradients])
            statistics = [v for v in self.non_trainable_variables if v.path.split("/")[-1] in MOVING]
            means = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, [tf.identity(v.value) for v in statistics]
            )
            for statistic, mean in zip(statistics, means, strict=True):
                statistic.assign(mean)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self._update_loss_means(losses, tf.shape(batch["labels"])[0])

    def _one_stream_after_the_other(self, batch: Batch) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Losses and gradients of the pair loss; never both streams' activations in memory."""
        images, labels, weights = batch["image"], batch["labels"], batch["weights"]
        with tf.GradientTape() as tape:
            features, global_logits = self.global_pass(images, training=True)
            global_loss = self.stream_loss(labels, global_logits, weights)
            scaled = self.optimizer.scale_loss(global_loss)
        of_global = tape.gradient(scaled, self.trainable_weights)
        boxes = self.find_boxes(features, self.select_classes(global_logits), images)
        with tf.control_dependencies(
            of_global
        ):  # or a graph would run the local stream beside the global backward
            images = tf.identity(images)
        with tf.GradientTape() as tape:
            local_logits = tf.reduce_max(self.local_pass(images, boxes, training=True), axis=1)
            local_loss = self.stream_loss(labels, local_logits, weights)
            scaled = self.optimizer.scale_loss(local_loss)
        of_local = tape.gradient(scaled, self.trainable_weights)
        losses = {"loss": global_loss + local_loss, "global_loss": global_loss, "local_loss": local_loss}
        return losses, [one + other for one, other in zip(of_global, of_local, strict=True)]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing: this model is built. Keras would take a batch to find out, under a strategy and in each `fit`."""

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Losses of a batch, nothing trained. Under a strategy: of all replicas' images, each of the same weight."""
        losses = self.losses_of(batch, training=False)
        images = tf.shape(batch["labels"])[0]
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # The last batch may leave a replica fewer images than another, or none, whose mean is no number.
            share = tf.cast(images, tf.float32)
            sums = {name: tf.math.multiply_no_nan(loss, share) for name, loss in losses.items()}
            sums, images = context.all_reduce(tf.distribute.ReduceOp.SUM, [sums, share])
            losses = {name: total / images for name, total in sums.items()}
        return self._update_loss_means(losses, images)

    def predict_step(self, batch: Batch | tf.Tensor) -> Outputs:
        """`call`'s outputs for a batch or for images alone."""
        return self(batch["image"] if isinstance(batch, dict) else batch, training=False)

    def losses_of(self, batch: Batch, training: bool, boxes: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """The loss that is minimized, and each stream's: scalars."""
        images, labels, weights = batch["image"], batch["labels"], batch["weights"]
        features, global_logits = self.global_pass(images, training)
        global_loss = self.stream_loss(labels, global_logits, weights)
        if self.top_n == 0:
            return {"loss": global_loss}
        if boxes is None:
            boxes = self.find_boxes(features, self.select_classes(global_logits), images)
        local_logits = tf.reduce_max(self.local_pass(images, boxes, training), axis=1)
        local_loss = self.stream_loss(labels, local_logits, weights)
        if self.learning == "pair":
            loss = global_loss + local_loss
        else:
            # The sigmoid is monotonic: the maximum of logits is that of probs (11).
            loss = self.stream_loss(labels, tf.maximum(global_logits, local_logits), weights)
        return {"loss": loss, "global_loss": global_loss, "local_loss": local_loss}

    def _update_loss_means(self, losses: dict[str, tf.Tensor], images: tf.Tensor) -> dict[str, tf.Tensor]:
        for name, mean in self.loss_means.items():
            mean.update_state(losses[name], sample_weight=images)
        return {name: mean.result() for name, mean in self.loss_means.items()}


class MeanOfOneReplica(keras.metrics.Mean):
    """The mean of what is the same on all replicas, as losses averaged over them are.

    Keras would keep a part of the sum on each, which a checkpoint by one of several workers holds a part of.
    """

    def add_variable(
        self, shape: Any, initializer: Any, dtype: Any = None, aggregation: str = "", name: str | None = None
    ) -> keras.Variable:
        return super().add_variable(shape, initializer, dtype, "only_first_replica", name)
