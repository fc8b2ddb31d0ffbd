"""BatchNorm by TensorFlow's fused op: the same layer as Keras', in a fraction of the time and memory."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mcar_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of (B, h, w, d) over its last axis, by `FusedBatchNormV3`.

    Keras 3 spells the layer out in a dozen elementwise ops, each of which goes through memory: with MobileNet-v2 on a
    CPU they cost as much as all convolutions together. And behind a convolution, grappler folds the fused op into it.

    One number differs: the moving variance takes the batch's unbiased variance (n / (n - 1)), as torch's layer does.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """(B, h, w, d) -> the same, normalized with the batch's moments in training, else with the moving ones."""
        learning = bool(training) and self.trainable
        moving = self.moving_mean, self.moving_variance
        if learning and self.synchronized:
            outputs, moments = self._normalize_over_replicas(inputs)
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

    def _normalize_over_replicas(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """With the moments of all replicas' batches together, as the fused op can't: outputs and moments."""
        x = tf.cast(inputs, tf.float32)
        mean, variance = self._moments(x, mask=None)
        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        outputs = tf.nn.batch_normalization(x, mean, variance, offset, scale, self.epsilon)
        values = tf.size(x) // tf.size(mean) * tf.distribute.get_replica_context().num_replicas_in_sync
        n = tf.cast(values, tf.float32)
        return tf.cast(outputs, inputs.dtype), (mean, variance * n / tf.maximum(n - 1.0, 1.0))


def fuse_batch_norm(network: keras.Model, momentum: float, synchronized: bool = False) -> keras.Model:
    """A copy of a functional model, weights and all, whose BatchNorm layers are fused and as asked for.

    Args:
        network: any.
        momentum: of the moving averages.
        synchronized: whether, in training, they normalize with the batch of all replicas.
    """
    changes = {"momentum": momentum, "synchronized": synchronized}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return FusedBatchNormalization.from_config(layer.get_config() | changes)
        return layer.__class__.from_config(layer.get_config())

    fused = keras.models.clone_model(network, clone_function=copy)
    fused.set_weights(network.get_weights())
    return fused
