"""BatchNorm with TensorFlow's fused op: the same layer as Keras', in a fraction of the time and memory."""

from typing import Any

import keras
import tensorflow as tf

from mcar_tf.models.keras_internals import layers_of, pass_on

# Which moving statistics normalize each stream at inference: one set for both (the paper's), one set for each, or the
# initial ones, which never change.
STATISTICS = ("shared", "per_stream", "frozen")
LOCAL_STREAM = "local_stream"  # name of the argument that tells the local stream's pass from the global one's
MOVING = (
    "moving_mean",
    "moving_variance",
    "local_moving_mean",
    "local_moving_variance",
)  # names of the moving statistics


@keras.saving.register_keras_serializable("mcar_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of (B, h, w, d) over its last axis, computed by `FusedBatchNormV3`.

    Keras 3 composes the layer of a dozen elementwise ops, each of which goes through memory: with MobileNet-v2 on a
    CPU they cost as much as all convolutions together. And grappler folds the fused op into a convolution before it.

    One number differs: the moving variance uses the batch's unbiased variance (n / (n - 1)), as torch's layer does.

    Args:
        statistics: "shared": one moving mean and variance; "per_stream": a second pair for calls with `local_stream`,
            with the same gamma and beta; "frozen": moving statistics that never change and are used in training too.
        **kwargs: arguments of `keras.layers.BatchNormalization`.
    """

    def __init__(self, statistics: str = "shared", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.statistics = statistics
        pass_on(self, LOCAL_STREAM)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights; with statistics per stream, the local stream's come after Keras' own weights."""
        super().build(input_shape)
        if self.statistics == "per_stream":
            initializers = self.moving_mean_initializer, self.moving_variance_initializer
            self.local_moving_mean, self.local_moving_variance = (
                self.add_weight(input_shape[-1:], initializer, name=name, trainable=False, autocast=False)
                for initializer, name in zip(initializers, MOVING[2:], strict=True)
            )

    def call(
        self,
        inputs: tf.Tensor,
        training: bool | None = None,
        mask: tf.Tensor | None = None,
        local_stream: bool = False,
    ) -> tf.Tensor:
        """Normalize (B, h, w, d) with the batch's moments in training, otherwise with the moving statistics."""
        learning = bool(training) and self.trainable and self.statistics != "frozen"
        moving = self.moving_mean, self.moving_variance
        if local_stream and self.statistics == "per_stream":
            moving = self.local_moving_mean, self.local_moving_variance
        if learning and self.synchronized:
            outputs, moments = self._normalize_by_elementwise_ops(inputs)
        else:
            given = (
                [tf.constant([])] * 2 if learning else [tf.convert_to_tensor(average) for average in moving]
            )
            outputs, *moments = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=tf.convert_to_tensor(self.gamma),
                offset=tf.convert_to_tensor(self.beta),
                mean=given[0],
                variance=given[1],
                epsilon=self.epsilon,
                is_training=learning,
            )
        if learning:
            for average, moment in zip(moving, moments, strict=False):
                average.assign(average * self.momentum + moment * (1.0 - self.momentum))
        return outputs

    def _normalize_by_elementwise_ops(
        self, inputs: tf.Tensor
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """Normalize without the fused op, which can't take the moments of all replicas. Returns outputs, moments."""
        x = tf.cast(inputs, tf.float32)
        mean, variance = self._moments(x, mask=None)
        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        outputs = tf.nn.batch_normalization(x, mean, variance, offset, scale, self.epsilon)
        batches = tf.distribute.get_replica_context().num_replicas_in_sync if self.synchronized else 1
        n = tf.cast(tf.size(x) // tf.size(mean) * batches, tf.float32)
        return tf.cast(outputs, inputs.dtype), (mean, variance * n / tf.maximum(n - 1.0, 1.0))

    def load_own_variables(self, store: Any) -> None:
        """Load saved weights; a file with one set of statistics gives it to both streams."""
        count = len(self.weights)
        if self.statistics == "per_stream" and len(store.keys()) == count - 2:
            values = [store[str(index)] for index in range(count - 2)]
            store = {str(index): value for index, value in enumerate([*values, *values[-2:]])}
        super().load_own_variables(store)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"statistics": self.statistics}


def fuse_batch_norm(
    network: keras.Model, momentum: float, synchronized: bool = False, statistics: str = "shared"
) -> keras.Model:
    """A copy of a model with its weights, whose BatchNorm layers are fused and have these options.

    Args:
        network: any functional or sequential model; models inside of it are copied too.
        momentum: momentum of the moving averages.
        synchronized: whether, in training, the layers normalize with the batch of all replicas.
        statistics: see `FusedBatchNormalization`.
    """
    changes = {"momentum": momentum, "synchronized": synchronized, "statistics": statistics}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return FusedBatchNormalization.from_config(layer.get_config() | changes)
        return layer.__class__.from_config(layer.get_config())

    fused = keras.models.clone_model(network, clone_function=copy, recursive=True)
    copy_backbone(network, fused)
    return fused


def copy_backbone(source: keras.Model, target: keras.Model) -> None:
    """Copy a network's weights to another that may differ from it in whether each stream has its own statistics.

    One set of statistics is copied to both streams; of two sets, a network with one set gets the global stream's.
    """
    for theirs, ours in zip(source.layers, target.layers, strict=True):
        if isinstance(theirs, keras.Model):
            copy_backbone(theirs, ours)
            continue
        values = theirs.get_weights()
        missing = len(ours.weights) - len(
            values
        )  # the local stream's statistics come last: they are copied from the others, or left out
        ours.set_weights([*values, *values[len(values) - missing :]] if missing >= 0 else values[:missing])


def give_local_stream_the_statistics(network: keras.Model) -> None:
    """Set the local stream's moving statistics to the global stream's, where each stream has its own."""
    for layer in layers_of(network, FusedBatchNormalization):
        if layer.statistics == "per_stream":
            layer.local_moving_mean.assign(layer.moving_mean)
            layer.local_moving_variance.assign(layer.moving_variance)


def check_batch_norm(batch_norm: str) -> None:
    """Raise `ValueError` for unknown statistics."""
    if batch_norm not in STATISTICS:
        raise ValueError(f"`batch_norm` must be one of {', '.join(STATISTICS)}. Received: {batch_norm!r}")
