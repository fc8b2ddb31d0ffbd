"""From an activation map to class logits: global pooling (13-15) or CSRA, and the 1x1 convolution (1), (4).

Letters: B images, h x w cells, d channels, C classes, N selected classes.
"""

import math

import keras
import tensorflow as tf

from mcar_tf.models.arguments import check_choice

POOLINGS = ("gap", "gmp", "gwp", "csra")  # the first three pool features, the last one pools class maps


def global_pool(features: tf.Tensor, pooling: str, gwp_lambda: float = 0.5) -> tf.Tensor:
    """GAP: average (13); GMP: maximum (14); GWP: lambda * GAP + (1 - lambda) * GMP (15).

    Args:
        features: (B, h, w, d), of any floating-point type.
        pooling: "gap", "gmp" or "gwp".
        gwp_lambda: weight of the average in GWP, in [0, 1].

    Returns:
        (B, d) float32.
    """
    # On a CPU, TensorFlow sums float16 values in float16; a mean over 14 x 14 cells is then wrong by some percent.
    features = tf.cast(features, tf.float32)
    if pooling == "gap":
        return tf.reduce_mean(features, axis=[1, 2])
    if pooling == "gmp":
        return tf.reduce_max(features, axis=[1, 2])
    average, maximum = tf.reduce_mean(features, axis=[1, 2]), tf.reduce_max(features, axis=[1, 2])
    return gwp_lambda * average + (1.0 - gwp_lambda) * maximum


def csra(maps: tf.Tensor, temperature: float, lam: float) -> tf.Tensor:
    """Class-specific residual attention: each class's mean over its map, plus a mean weighted to its strongest cells.

    mean(F) + lam * sum(softmax(temperature * F) * F), over the cells of a class's map F.

    Args:
        maps: class activation maps F of all classes, (B, h, w, C) logits.
        temperature: T, positive; infinity takes the maximum (the authors' code writes 99 for it).
        lam: weight of the attention, 0 or more; 0 is average pooling.

    Returns:
        Logits (B, C) float32.

    Source: K. Zhu and J. Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition", ICCV
    2021, equations (3) to (8), with one head.
    """
    maps = tf.cast(maps, tf.float32)
    average, highest = tf.reduce_mean(maps, axis=[1, 2]), tf.reduce_max(maps, axis=[1, 2], keepdims=True)
    if math.isinf(temperature):
        return average + lam * highest[:, 0, 0]
    attention = tf.exp(temperature * (maps - tf.stop_gradient(highest)))  # 1 for the highest cell
    weighted = tf.reduce_sum(attention * maps, axis=[1, 2]) / tf.reduce_sum(attention, axis=[1, 2])
    return average + lam * weighted


def check_pooling(
    pooling: str, gwp_lambda: float = 0.5, csra_temperature: float = 1.0, csra_lambda: float = 0.1
) -> None:
    """Raise `ValueError` for an unknown pooling or values outside their range."""
    check_choice("pooling", pooling, POOLINGS)
    if not 0.0 <= gwp_lambda <= 1.0:
        raise ValueError(f"`gwp_lambda` must lie in [0, 1]. Received: {gwp_lambda}")
    if not csra_temperature > 0.0:
        raise ValueError(f"`csra_temperature` must be positive. Received: {csra_temperature}")
    if not csra_lambda >= 0.0:
        raise ValueError(f"`csra_lambda` must not be negative. Received: {csra_lambda}")


@keras.saving.register_keras_serializable("mcar_tf")
class Classifier(keras.layers.Layer):
    """The 1x1 convolution with weights W and b, for pooled features and for maps. float32 whatever the policy.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int, name: str = "classifier") -> None:
        super().__init__(name=name, dtype="float32")
        self.num_classes = num_classes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # U(-1/sqrt(d), 1/sqrt(d)), torch's default for a convolution.
        uniform = keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_in", distribution="uniform")
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_classes), initializer=uniform, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.num_classes,), initializer="zeros", name="bias")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Logits x = W^T f + b (1), (B, d) -> (B, C), or all classes' maps F (4), (B, h, w, d) -> (B, h, w, C)."""
        if features.shape.rank == 2:
            return tf.linalg.matmul(features, self.kernel) + self.bias
        kernel = tf.convert_to_tensor(self.kernel)[tf.newaxis, tf.newaxis]
        return tf.nn.conv2d(features, kernel, strides=1, padding="VALID") + self.bias

    def class_activation_maps(self, features: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Maps F = W^T A + b (4) of some classes, without gradient to A.

        Args:
            features: A, (B, h, w, d).
            classes: (B, N) int32.

        Returns:
            (B, N, h, w) float32 logits.
        """
        features = tf.stop_gradient(tf.cast(features, tf.float32))
        kernel = tf.gather(tf.transpose(self.kernel), classes)  # (B, N, d)
        bias = tf.gather(self.bias, classes)[..., tf.newaxis, tf.newaxis]
        return tf.einsum("bnd,bhwd->bnhw", kernel, features) + bias

    def classify(
        self,
        features: tf.Tensor,
        pooling: str,
        *,
        gwp_lambda: float = 0.5,
        csra_temperature: float = 1.0,
        csra_lambda: float = 0.1,
    ) -> tf.Tensor:
        """Logits (B, C) of an activation map A, (B, h, w, d): pool, then classify; with CSRA, classify, then pool.

        Args:
            features: A.
            pooling: one of `POOLINGS`.
            gwp_lambda: see `global_pool`.
            csra_temperature: `temperature` of `csra`.
            csra_lambda: `lam` of `csra`.
        """
        if pooling == "csra":
            return csra(self(tf.cast(features, tf.float32)), csra_temperature, csra_lambda)
        return self(global_pool(features, pooling, gwp_lambda))

    def get_config(self) -> dict:
        return {"num_classes": self.num_classes, "name": self.name}
