"""The Keras metric keeps everything: by batches, in `fit`, and on two replicas it gives numpy's mAP."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf import metrics
from mcar_tf.keras_metrics import MeanAveragePrecision

ROOT = Path(__file__).parent.parent

# Two logical CPUs can only be made before TensorFlow starts: hence a process of its own. 37 images in batches
# of 8 leave a last one of 5, which two replicas can't share evenly.
TWO_REPLICAS = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from mcar_tf import metrics
from mcar_tf.keras_metrics import MeanAveragePrecision

rng = np.random.default_rng(0)
labels = (rng.random((37, 5)) < 0.3).astype(np.float32)
probs = rng.random((37, 5), np.float32)
weights = (rng.random((37, 5)) < 0.8).astype(np.float32)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    metric = MeanAveragePrecision(capacity=24, num_classes=5)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    in_fit = MeanAveragePrecision(capacity=24, num_classes=5)
    model.compile(loss="mse", metrics=[in_fit], weighted_metrics=[], jit_compile=False)
data = tf.data.Dataset.from_tensor_slices((labels, probs, weights)).batch(8)


@tf.function
def step(batch):
    strategy.run(metric.update_state, args=batch)


for _ in range(2):
    metric.reset_state()
    for batch in strategy.experimental_distribute_dataset(data):
        step(batch)
    assert abs(float(metric.result()) - metrics.mean_average_precision(labels, probs, weights)) < 1e-6
found = model.evaluate(data.map(lambda labels, probs, weights: (probs, labels)), verbose=0, return_dict=True)
assert abs(found["mAP"] - metrics.mean_average_precision(labels, probs)) < 1e-6, found
"""


@pytest.fixture
def scored():
    rng = np.random.default_rng(1)
    labels = (rng.random((23, 4)) < 0.3).astype(np.float32)
    return labels, rng.random((23, 4), np.float32), (rng.random((23, 4)) < 0.8).astype(np.float32)


def test_batches_give_the_map_of_the_whole(scored):
    metric = MeanAveragePrecision(capacity=23, num_classes=4)
    for rows in (slice(0, 10), slice(10, 20), slice(20, 23)):
        metric.update_state(*(array[rows] for array in scored))
    assert float(metric.result()) == pytest.approx(metrics.mean_average_precision(*scored), abs=1e-7)


def test_a_reset_forgets(scored):
    metric = MeanAveragePrecision(capacity=23, num_classes=4)
    metric.update_state(*scored)
    metric.reset_state()
    assert np.isnan(metric.result())
    metric.update_state([[1, 0, 0, 0], [0, 0, 0, 0]], [[0.1, 0, 0, 0], [0.9, 0, 0, 0]])
    assert float(metric.result()) == 0.5


def test_a_compiled_step_keeps_the_same(scored):
    metric = MeanAveragePrecision(capacity=23, num_classes=4)
    tf.function(metric.update_state, jit_compile=True)(*map(tf.constant, scored))
    assert float(metric.result()) == pytest.approx(metrics.mean_average_precision(*scored), abs=1e-7)


def test_more_images_than_its_capacity_are_refused(scored):
    metric = MeanAveragePrecision(capacity=20, num_classes=4)
    tf.function(metric.update_state, jit_compile=True)(*map(tf.constant, scored))
    with pytest.raises(ValueError, match="Received: 20, images so far: 23"):
        metric.result()


def test_it_is_made_again_from_its_config():
    metric = MeanAveragePrecision(capacity=5, num_classes=4, name="global_mAP")
    again = keras.metrics.deserialize(
        keras.metrics.serialize(metric), {"MeanAveragePrecision": MeanAveragePrecision}
    )
    assert (again.capacity, again.num_classes, again.name) == (5, 4, "global_mAP")


def test_two_replicas_give_the_numbers_of_one():
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
