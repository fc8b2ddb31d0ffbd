"""Everything that this package uses of Keras 3's internals, with the reasons. No other module uses private names.

`tests/models/test_keras_internals.py` fails if a new release of Keras changes one of them.
"""

import io
from typing import Any, TypeVar

import keras

LayerKind = TypeVar("LayerKind", bound=keras.layers.Layer)


class BuiltModel(keras.Model):
    """A model that has all its variables as soon as it is constructed."""

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing: under a strategy Keras would build the model from a batch in each `fit` and `evaluate`.

        With several workers' batches this fails: https://github.com/keras-team/keras/issues/20585.
        """


class MeanOfOneReplica(keras.metrics.Mean):
    """The mean of a value that is the same on all replicas, such as a loss averaged over them.

    Keras would keep a part of the sum on each replica, and a checkpoint written by one of several workers would hold
    only a part. `keras.metrics.Mean` has no argument for `aggregation`, so it is set where the variables are made.
    """

    def add_variable(
        self, shape: Any, initializer: Any, dtype: Any = None, aggregation: str = "", name: str | None = None
    ) -> keras.Variable:
        """A variable of which only the first replica's copy counts."""
        return super().add_variable(shape, initializer, dtype, "only_first_replica", name)


def take_gradients_as_given(optimizer: keras.optimizers.Optimizer) -> None:
    """Let an optimizer apply gradients that are already the same on all replicas, without summing them.

    Keras clips, accumulates and checks for overflows on each replica's share of the gradients, and sums only after
    that (`TFOptimizer._backend_update_step`). `Optimizer.apply` has no argument to skip the sum.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


def take_logs_as_given() -> None:
    """Let Keras use each worker's own scalars as the result of a step, which has averaged them already.

    Otherwise Keras gathers them along an axis that scalars don't have:
    https://github.com/keras-team/keras/issues/20585. Its trainer calls the function replaced here to decide whether
    to gather, so this applies to all models in the process.
    """
    from keras.src.backend.tensorflow import trainer

    trainer._collective_all_reduce_multi_worker = lambda strategy: False


def pass_on(layer: keras.layers.Layer, argument: str) -> None:
    """Let a layer or model pass an argument of its call on to the layers inside it, as Keras does with `training`.

    A functional model takes no other arguments than its inputs, and Keras has no public way to add one.
    """
    layer._register_call_context_args(argument)


def layers_of(model: keras.Model, kind: type[LayerKind]) -> list[LayerKind]:
    """All layers of a kind in a model and in its nested models, which `Model.layers` does not enter."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def weights_as_bytes(model: keras.Model) -> bytes:
    """The content of the `.weights.h5` file that `model.save_weights` writes.

    Keras can only write to a path (`saving_lib.save_weights_only`), and if the disk is full, HDF5 ends the process
    with a segmentation fault. So this does the same as that function, but in memory.
    """
    from keras.src.saving import saving_lib

    file = io.BytesIO()
    store = saving_lib.H5IOStore(file, mode="w")
    saving_lib._save_state(model, store, None, inner_path="", visited_saveables=set())
    store.close()
    return file.getvalue()


def nodes_of(network: keras.Model) -> list[Any]:
    """The layer calls that make up a functional model, starting at its inputs; Keras has no public name for them.

    Each has `input_tensors` and `output_tensors`.
    """
    depths = network._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
