"""The Keras metric keeps everything: by batches it gives numpy's mAP. On replicas: tests/test_replicas.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf import metrics
from mcar_tf.evaluating.keras_metrics import MeanAveragePrecision


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
