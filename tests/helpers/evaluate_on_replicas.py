"""Evaluate on N logical CPUs (the first argument) and hold every number to what one gives; prints `all of it`."""

import sys

import keras
import numpy as np
import tensorflow as tf
from test_predicting import make_dataset

from mcar_tf import metrics
from mcar_tf.evaluating.keras_metrics import MeanAveragePrecision
from mcar_tf.evaluating.predicting import OUTPUTS, predict_dataset
from mcar_tf.evaluating.results import evaluate_predictions
from mcar_tf.models.mcar import build_mcar

# Before anything computes.
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(int(sys.argv[1]))])

# Evaluation: 9 images in batches of 4 leave a last one of 1, of which all replicas but one get nothing.
# With tau 0 regions are whole images: another rounding can't move a box by a pixel.
dataset = make_dataset(images=9, batch_size=4, side=32)
keras.utils.set_random_seed(0)
one = build_mcar(3, backbone="tiny_resnet", image_size=32, top_n=2, tau=0.0, weights=None)
with strategy.scope():
    several = build_mcar(3, backbone="tiny_resnet", image_size=32, top_n=2, tau=0.0, weights=None)
several.set_weights(one.get_weights())
expected, found = predict_dataset(one, dataset), predict_dataset(several, dataset)
np.testing.assert_array_equal(found.ids, expected.ids)
np.testing.assert_array_equal(found.labels, expected.labels)
for name in OUTPUTS:
    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name)
numbers, same_numbers = evaluate_predictions(expected), evaluate_predictions(found)
assert same_numbers["images"] == 9
np.testing.assert_allclose(tf.nest.flatten(same_numbers), tf.nest.flatten(numbers), atol=1e-5)

# The Keras metric: 37 images in batches of 8 leave a last one of 5, which replicas can't share evenly.
rng = np.random.default_rng(0)
labels = (rng.random((37, 5)) < 0.3).astype(np.float32)
probs = rng.random((37, 5), np.float32)
weights = (rng.random((37, 5)) < 0.8).astype(np.float32)
with strategy.scope():
    metric = MeanAveragePrecision(capacity=24, num_classes=5)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    compiled = MeanAveragePrecision(capacity=24, num_classes=5)
    model.compile(loss="mse", metrics=[compiled], weighted_metrics=[], jit_compile=False)
data = tf.data.Dataset.from_tensor_slices((labels, probs, weights)).batch(8)


@tf.function
def step(batch):
    strategy.run(metric.update_state, args=batch)


for _ in range(2):
    metric.reset_state()
    for batch in strategy.experimental_distribute_dataset(data):
        step(batch)
    assert abs(float(metric.result()) - metrics.mean_average_precision(labels, probs, weights)) < 1e-6
if (
    int(sys.argv[1]) > 2
):  # Keras' own `evaluate` adds up what replicas got, and can't where they got 2, 2 and 1
    print("all of it")
    sys.exit()
result = model.evaluate(data.map(lambda labels, probs, weights: (probs, labels)), verbose=0, return_dict=True)
assert abs(result["mAP"] - metrics.mean_average_precision(labels, probs)) < 1e-6, result
print("all of it")
