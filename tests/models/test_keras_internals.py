"""Each of Keras' internals that we rely on is still there, is still used by Keras, and still needs our override."""

import io

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from test_mcar import batch_of, small_model

from mcar_tf.models.keras_internals import (
    MeanOfOneReplica,
    layers_of,
    nodes_of,
    take_gradients_as_given,
    take_logs_as_given,
    weights_as_bytes,
)
from mcar_tf.training.losses import binary_cross_entropy


def test_keras_builds_by_a_batch_what_is_not_a_built_model(monkeypatch):
    asked = []
    monkeypatch.setattr(
        trainer.TensorFlowTrainer, "_maybe_symbolic_build", lambda self, **_: asked.append(self.name)
    )
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    plain.compile(loss="mse", jit_compile=False)
    plain.evaluate(np.zeros((1, 2)), np.zeros((1, 1)), verbose=0)
    built = small_model(top_n=0)
    built.compile(keras.optimizers.SGD(), binary_cross_entropy)
    images = np.zeros((1, 32, 32, 3), np.float32)
    built.evaluate(tf.data.Dataset.from_tensors(batch_of(images)), verbose=0)
    assert asked == ["plain"]


def test_keras_sums_gradients_over_replicas_unless_they_are_taken_as_given(monkeypatch):
    summed = []

    def sum_over_replicas(self, gradients_and_variables):
        summed.append(self.name)
        return list(gradients_and_variables)

    monkeypatch.setattr(TFOptimizer, "_all_reduce_sum_gradients", sum_over_replicas)
    plain, given, inner = (keras.optimizers.SGD(1.0, name=name) for name in ("plain", "given", "inner"))
    scaling = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0)
    for optimizer in (given, scaling):
        take_gradients_as_given(optimizer)
    for optimizer, gradient in ((plain, 1.0), (given, 1.0), (scaling, 2.0)):
        variable = keras.Variable([3.0])
        optimizer.apply([tf.constant([gradient])], [variable])
        np.testing.assert_array_equal(variable, [2.0])
    assert summed == ["plain"]


def test_a_mean_keeps_its_sums_on_each_replica_unless_one_counts():
    assert {v.aggregation for v in keras.metrics.Mean().variables} == {"sum"}
    one = MeanOfOneReplica()
    assert {v.aggregation for v in one.variables} == {"only_first_replica"}
    one.update_state(1.0, sample_weight=3)
    one.update_state(5.0, sample_weight=1)
    assert float(one.result()) == 2.0


def test_keras_reduces_logs_of_several_workers_unless_they_are_taken_as_given(monkeypatch):
    class Workers:
        def reduce(self, *_):
            return "reduced"

    monkeypatch.setattr(trainer, "_collective_all_reduce_multi_worker", lambda strategy: True)
    logs = {"loss": 2.0}
    assert trainer.reduce_per_replica(logs, Workers(), reduction="sum") == {"loss": "reduced"}
    take_logs_as_given()
    assert trainer.reduce_per_replica(logs, Workers(), reduction="sum") == logs


def test_layers_of_a_kind_are_found_in_models_inside_of_a_model():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inside")])
    inputs = keras.Input((2,))
    model = keras.Model(inputs, inner(keras.layers.Dense(4, name="outside")(inputs)))
    assert {layer.name for layer in layers_of(model, keras.layers.Dense)} == {"inside", "outside"}


def test_nodes_come_in_an_order_in_which_they_can_be_computed():
    inputs = keras.Input((4,))
    branch = keras.layers.Dense(4)(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, keras.layers.Add()([inputs, branch]))
    known: set[int] = set()
    for node in nodes_of(model):
        assert known.issuperset(map(id, node.input_tensors))
        known.update(map(id, node.output_tensors))
    assert known == {id(layer.output) for layer in model.layers}


def content_of(file):
    found = {}
    with h5py.File(file) as opened:
        opened.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found


def test_weights_in_memory_are_the_file_that_keras_writes(tmp_path, monkeypatch):
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.5)])  # whose seed is made of integers
    model.save_weights(tmp_path / "keras.weights.h5")
    theirs = content_of(tmp_path / "keras.weights.h5")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ours = content_of(io.BytesIO(weights_as_bytes(model)))
    assert list((tmp_path / "empty").iterdir()) == []  # HDF5 was given no file
    assert ours.keys() == theirs.keys()
    assert len(ours) > 5
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
