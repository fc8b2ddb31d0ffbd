"""What this package takes from inside Keras 3, each with its reason: nothing else uses a private name of Keras.

`tests/models/test_keras_internals.py` fails where a new release of Keras changes one of them.
"""

import io
from typing import Any, TypeVar

import keras

LayerKind = TypeVar("LayerKind", bound=keras.layers.Layer)


class BuiltModel(keras.Model):
    """A model that has all its variables once it is constructed."""

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing: under a strategy Keras would take a batch, in each `fit` and `evaluate`, to build the model by.

        Of several workers' batches it can't: https://github.com/keras-team/keras/issues/20585.
        """


class MeanOfOneReplica(keras.metrics.Mean):
    """The mean of what is the same on all replicas, as losses averaged over them are.

    Keras would keep a part of the sum on each replica, and a checkpoint by one of several workers holds a part only.
    `keras.metrics.Mean` passes no `aggregation` on: it is chosen where the variables are made.
    """

    def add_variable(
        self, shape: Any, initializer: Any, dtype: Any = None, aggregation: str = "", name: str | None = None
    ) -> keras.Variable:
        """A variable of which the first replica's copy counts."""
        return super().add_variable(shape, initializer, dtype, "only_first_replica", name)


def take_gradients_as_given(optimizer: keras.optimizers.Optimizer) -> None:
    """Let an optimizer apply gradients that are the same on all replicas without a sum over these.

    Keras clips, accumulates and searches for overflows on each replica's share of the gradients, and sums only then
    (`TFOptimizer._backend_update_step`); `Optimizer.apply` has no argument that leaves the sum out.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


def take_logs_as_given() -> None:
    """Let Keras take each worker's own scalars for the result of a step, which has averaged them already.

    Keras gathers them along an axis that scalars don't have: https://github.com/keras-team/keras/issues/20585. Its
    trainer asks this function whether to, for all models of the process.
    """
    from keras.src.backend.tensorflow import trainer

    trainer._collective_all_reduce_multi_worker = lambda strategy: False


def pass_on(layer: keras.layers.Layer, argument: str) -> None:
    """Let a layer or model hand an argument of its call on to the layers inside of it, as Keras does with `training`.

    A functional model takes no arguments but its inputs, and Keras has no public way to add one.
    """
    layer._register_call_context_args(argument)


def layers_of(model: keras.Model, kind: type[LayerKind]) -> list[LayerKind]:
    """All layers of a kind in a model and in the models inside of it, which `Model.layers` does not enter."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def weights_as_bytes(model: keras.Model) -> bytes:
    """The content of the `.weights.h5` file that `model.save_weights` writes.

    Keras writes to a path only (`saving_lib.save_weights_only`), and where the disk is full HDF5 ends the process by
    a segmentation fault. So this does what that function does, with a store that lies in memory.
    """
    from keras.src.saving import saving_lib

    file = io.BytesIO()
    store = saving_lib.H5IOStore(file, mode="w")
    saving_lib._save_state(model, store, None, inner_path="", visited_saveables=set())
    store.close()
    return file.getvalue()


def nodes_of(network: keras.Model) -> list[Any]:
    """The calls of layers that a functional model is made of, from its inputs on; Keras has no public name for them.

    Each has `input_tensors` and `output_tensors`.
    """
    depths = network._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
