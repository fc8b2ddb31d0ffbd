"""Save memory in training: drop a network's activations, and compute them again in the backward pass."""

import collections
import itertools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from mcar_tf.models.batch_norm import LOCAL_STREAM
from mcar_tf.models.keras_internals import nodes_of, pass_on


def rematerialize(network: keras.Model, segments: int = 8) -> Callable[[tf.Tensor, bool, bool], tf.Tensor]:
    """`network` as a function of (input, training, local_stream), run in segments with `tf.recompute_grad`.

    Only the input of each segment and the activations of one segment are in memory at a time. For a network of n
    equal layers these are about n / segments + segments activations instead of n, for one more forward pass.

    Args:
        network: a functional model of one input and one output; its layers are shared, not copied.
        segments: the largest number; a network can be cut only where all that follows depends on a single tensor.
    """
    parts = cut(network, segments)
    for part in parts:
        pass_on(part, LOCAL_STREAM)

    def call(inputs: tf.Tensor, training: bool, local_stream: bool = False) -> tf.Tensor:
        for part in parts:
            inputs = _recomputed(part, training=training, local_stream=local_stream)(inputs)
        return inputs

    return call


def _recomputed(part: keras.Model, **arguments: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """A segment for one call. Its backward pass computes it again, with the same dropout and changing no state."""
    weights = {id(weight) for weight in part.weights}
    seeds = [variable for variable in part.variables if id(variable) not in weights]
    drawn = [(seed, tf.identity(seed.value)) for seed in seeds]  # each call of dropout advances its seed
    calls = itertools.count()

    def run(inputs: tf.Tensor) -> tf.Tensor:
        if next(calls) == 0:  # the forward pass
            return part(inputs, **arguments)
        # Assignments to variables in this scope, such as moving averages, are dropped. The scope applies only to this
        # thread, which is this replica's.
        with keras.StatelessScope(drawn, initialize_variables=False):
            return part(inputs, **arguments)

    return tf.recompute_grad(run)


def cut(network: keras.Model, segments: int) -> list[keras.Model]:
    """Cut a functional model into at most `segments` models that share its layers, with about equal activations.

    If the last layer is itself a functional model, that one is cut.
    """
    nodes = nodes_of(network)
    last = network.layers[-1]
    if isinstance(last, keras.Model):
        image, scaled = network.inputs[0], nodes[-1].input_tensors[0]
        before = [] if scaled is image else [keras.Model(image, scaled)]
        return [*before, *cut(last, segments)]
    uses = collections.Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    sizes = _activation_sizes(network, [node.output_tensors[0] for node in nodes])
    needed: set[int] = set()  # tensors that later nodes still need
    # Places to cut: size of the activations so far, and the only tensor needed from here on.
    places: list[tuple[int, keras.KerasTensor]] = []
    for node, size in zip(nodes, itertools.accumulate(sizes), strict=True):
        for tensor in node.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                needed.discard(id(tensor))
        output = node.output_tensors[0]
        needed.add(id(output))
        if len(needed) == 1 and node.input_tensors:
            places.append((size, output))
    goals = [sum(sizes) * k / segments for k in range(1, segments)]
    chosen = {min(range(len(places)), key=lambda i: abs(places[i][0] - goal)) for goal in goals}
    inner = [places[i][1] for i in sorted(chosen) if places[i][1] is not network.outputs[0]]
    borders = [network.inputs[0], *inner, network.outputs[0]]
    return [keras.Model(start, end) for start, end in itertools.pairwise(borders)]


def _activation_sizes(network: keras.Model, tensors: list[keras.KerasTensor]) -> list[int]:
    """How many numbers each tensor has, for one image of 256 x 256 px."""
    every = keras.Model(network.inputs[0], tensors)
    return [
        math.prod(spec.shape[1:]) for spec in every.compute_output_spec(keras.KerasTensor((1, 256, 256, 3)))
    ]
