"""mAP as a Keras metric: takes labels and probabilities batch by batch, and computes the exact mAP of all of them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mcar_tf import metrics


class MeanAveragePrecision(keras.metrics.Metric):
    """The mAP of everything seen since the last reset, as `mcar_tf.metrics.mean_average_precision` defines
    it.

    Average precision is not a mean over batches, so the metric keeps every label and probability. `update_state`
    costs a copy of the batch; `result` sorts all that was kept, on the host: read it once per epoch, and leave
    it out of the logs of each step. Every replica keeps its own share; outside the replicas, `result` covers all
    shares.

    Args:
        capacity: how many images a replica can be shown between two resets.
        num_classes: C.
        name: the metric's name in logs.
    """

    def __init__(self, capacity: int, num_classes: int, name: str = "mAP", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.capacity, self.num_classes = capacity, num_classes
        self._strategy = tf.distribute.get_strategy()
        shape = (capacity, num_classes)
        self._probs = self.add_variable(shape, "zeros", "float32", name="probs")
        # 1 for positives, -1 for negatives, 0 for labels that don't count and for rows that are not filled yet.
        self._signs = self.add_variable(shape, "zeros", "float32", name="signs")
        self._filled = self.add_variable((1,), "zeros", "int32", name="filled")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Keep a batch. Outside the replicas nothing is kept: Keras traces there once to learn the shapes.

        Args:
            y_true: (B, C) labels, 0 or 1.
            y_pred: (B, C) probabilities.
            sample_weight: (B, C), 0 for labels that don't count, else 1; None if all count.
        """
        if self._outside_replicas():
            return
        signs = 2 * tf.cast(y_true, tf.float32) - 1
        if sample_weight is not None:
            signs *= tf.cast(sample_weight, tf.float32)
        filled = tf.convert_to_tensor(self._filled)
        rows = filled + tf.range(tf.shape(signs)[0])
        # Written in place, because `assign` would copy everything kept so far at every step.
        for variable, values in ((self._probs, y_pred), (self._signs, signs)):
            values = tf.cast(values, tf.float32)
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)
        self._filled.assign(filled + tf.shape(signs)[0])

    def result(self) -> tf.Tensor:
        """MAP as a float32 scalar; NaN while no class has a positive."""
        kept = [self._gathered(variable) for variable in (self._probs, self._signs, self._filled)]
        result = tf.numpy_function(self._mean_average_precision, kept, tf.float64)
        return tf.cast(tf.ensure_shape(result, ()), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "capacity": self.capacity, "num_classes": self.num_classes}

    def _gathered(self, variable: Any) -> tf.Tensor:
        """The rows of all replicas; inside a replica, only its own rows."""
        if not self._outside_replicas():
            return tf.convert_to_tensor(variable)
        shares = self._strategy.run(lambda: tf.convert_to_tensor(variable))
        return self._strategy.gather(shares, axis=0)

    def _outside_replicas(self) -> bool:
        # `in_cross_replica_context` can't be used: outside of all scopes it answers for the default strategy.
        context = tf.distribute.get_replica_context()
        return context is None or context.strategy is not self._strategy

    def _mean_average_precision(self, probs: np.ndarray, signs: np.ndarray, filled: np.ndarray) -> np.float64:
        if filled.max() > self.capacity:  # XLA and GPUs drop what they are told to write out of bounds
            raise ValueError(
                f"`capacity` must be at least the images that a replica sees between two resets."
                f" Received: {self.capacity}, images so far: {filled.max()}"
            )
        return np.float64(metrics.mean_average_precision(signs > 0, probs, signs != 0))
