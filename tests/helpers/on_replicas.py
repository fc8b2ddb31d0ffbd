"""Trains on logical CPUs, or as a worker, and prints what came of it as JSON: for tests, which need processes for it.

How many devices there are is decided before TensorFlow starts, so no test of this process can ask for more.
"""

import functools
import json
import os
import sys
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from little_network import little_network

from mcar_tf.models.keras_internals import layers_of
from mcar_tf.models.mcar import MCAR, build_mcar
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.multi_worker import make_multi_worker_strategy
from mcar_tf.training.optimizers import TwoRateSGD

CLASSES, SIZE, STEPS = 5, 32, 20
BOXES = np.array([[0.0, 0.0, 0.5, 0.75], [0.25, 0.25, 1.0, 1.0]], np.float32)


def batches(size: int) -> tf.data.Dataset:
    random = np.random.default_rng(0)
    content = {
        "image": random.uniform(0, 255, (size * STEPS, SIZE, SIZE, 3)).astype("float32"),
        "labels": random.integers(0, 2, (size * STEPS, CLASSES)).astype("float32"),
        "weights": random.integers(0, 2, (size * STEPS, CLASSES)).astype("float32"),
    }
    return tf.data.Dataset.from_tensor_slices(content).batch(size, drop_remainder=True)


@functools.cache
def strategy_of(replicas: int) -> tf.distribute.Strategy:
    if "TF_CONFIG" in os.environ:
        return make_multi_worker_strategy()
    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def build(
    *,
    frozen: bool,
    synchronized: bool = False,
    low_memory: bool = False,
    options: dict | None = None,
    **optimizer,
) -> MCAR:
    """A model whose regions are `BOXES`, with BatchNorm and `options` of `build_mcar` as asked for."""
    keras.utils.set_random_seed(0)
    model = build_mcar(
        CLASSES,
        little_network(),
        image_size=SIZE,
        top_n=2,
        weights=None,
        sync_batch_norm=synchronized,
        **(options or {}),
    )
    for layer in layers_of(model.backbone, keras.layers.BatchNormalization):
        layer.trainable = not frozen
    model.find_boxes = lambda features, classes, images: tf.tile(BOXES[None], [tf.shape(images)[0], 1, 1])
    model.compile(TwoRateSGD(0.01, **optimizer), loss=binary_cross_entropy, low_memory=low_memory)
    model.optimizer.build(model.trainable_variables)
    return model


class Losses(keras.callbacks.Callback):
    """The loss of each step, from the epoch's running mean."""

    def __init__(self):
        super().__init__()
        self.sums = [0.0]

    def on_train_batch_end(self, batch, logs=None):
        self.sums.append((batch + 1) * float(logs["loss"]))


def train(
    replicas: int, batch: int = 8, steps: int = STEPS, skip: int = 0, evaluated: Sequence[int] = (), **options
) -> dict:
    """Train for `steps` from the batch after the first `skip`, then evaluate on each of these numbers of images."""
    strategy = strategy_of(replicas)
    with strategy.scope():
        model = build(**options)
    losses = Losses()
    history = model.fit(
        batches(batch).skip(skip), steps_per_epoch=steps, callbacks=[losses], verbose=0, shuffle=False
    ).history
    copies = [
        [np.asarray(copy).ravel() for copy in strategy.experimental_local_results(v.value)]
        for v in [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    ]
    return {
        "losses": np.diff(losses.sums).tolist(),
        "epoch_loss": history["loss"][0],
        "weights": np.concatenate([w.ravel() for w in model.get_weights()]).tolist(),
        "statistics": np.concatenate([np.ravel(v) for v in moving_statistics(model)]).tolist(),
        "evaluated": [
            model.evaluate(batches(1).take(images).unbatch().batch(batch), verbose=0, return_dict=True)
            for images in evaluated
        ],
        "most_between_replicas": max(float(np.abs(c - of[0]).max()) for of in copies for c in of),
    }


def moving_statistics(model: MCAR) -> list[np.ndarray]:
    return [v.numpy() for v in model.variables if v.path.endswith(("moving_mean", "moving_variance"))]


if __name__ == "__main__":
    count = max(json.loads(argument)["replicas"] for argument in sys.argv[1:])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    print(json.dumps([train(**json.loads(argument)) for argument in sys.argv[1:]]))
