"""Load tensors with any library's names into a Keras network, or say in one line why they don't fit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mcar_tf.models.weights.names import BATCH_NORM, CONVOLUTION, NAMINGS, Naming
from mcar_tf.models.weights.tensors import Array, Tensors

if TYPE_CHECKING:
    import keras

# torch: (out, in, h, w). Keras: (h, w, in, out), and for depthwise convolutions (h, w, channels, 1).
TO_KERAS, DEPTHWISE_TO_KERAS = (2, 3, 1, 0), (2, 3, 0, 1)


def fill_network(network: "keras.Model", tensors: Tensors, backbone: str) -> Naming:
    """Load a file's tensors into a network of `mcar_tf.models.networks`.

    Args:
        network: a network whose layers are named by the backbone's first naming.
        tensors: all tensors of the file.
        backbone: a key of `NAMINGS`.

    Returns:
        The naming that the file follows.

    Raises:
        ValueError: tensors are unknown, missing, of another shape, not floats or not finite; names the first of each.
    """
    naming = max(NAMINGS[backbone], key=lambda one: _likeness(one, tensors))
    places = dict(_places(network, backbone, naming))
    check_fit(tensors, {name: shape for name, (_, shape, _) in places.items()}, naming, backbone)
    values: dict[Any, list[Array]] = {}
    for name, (layer, _, axes) in places.items():
        values.setdefault(layer, []).append(read_values(tensors, name).transpose(axes))
    for layer, of_layer in values.items():
        layer.set_weights(of_layer)
    return naming


def check_fit(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], naming: Naming, backbone: str) -> None:
    """Raise `ValueError` if the tensors are not those of a backbone.

    Args:
        tensors: all tensors of a file.
        shapes: the shapes that the backbone needs, by the file's names.
        naming: the naming that the file follows.
        backbone: name of the backbone.
    """
    unknown = [name for name in tensors if name not in shapes and not naming.is_needless(name)]
    missing = [name for name in shapes if name not in tensors]
    wrong = [name for name, shape in shapes.items() if name in tensors and tensors[name].shape != shape]
    reasons = []
    if unknown:
        reasons.append(f"{_count(unknown)} unknown, first {unknown[0]}")
    if missing:
        reasons.append(f"{_count(missing)} missing, first {missing[0]}")
    if wrong:
        reasons.append(
            f"{_count(wrong)} of another shape, first {wrong[0]}, which is {tensors[wrong[0]].shape} and should be"
            f" {shapes[wrong[0]]}"
        )
    if reasons:
        found = looks_like(tensors)
        reasons += [f"it looks like {found}"] if found not in (None, backbone) else []
        raise ValueError(f"as {backbone} by the names of {naming.whose}, {'; '.join(reasons)}")


def looks_like(tensors: Tensors) -> str | None:
    """The backbone whose tensor names are most like the file's, or None if none are similar."""
    likeness = {
        name: max(_likeness(naming, tensors) for naming in namings) for name, namings in NAMINGS.items()
    }
    best = max(likeness, key=lambda name: likeness[name])
    return best if likeness[best] > 0.5 else None


def read_values(tensors: Tensors, name: str) -> Array:
    """The values of a tensor as float32; `ValueError` if they are not finite or a variance is negative."""
    try:
        values = tensors[name].to_float32()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if name.endswith("running_var") and (values < 0).any():
        raise ValueError(f"{name} holds a variance below zero")
    return values


def _places(
    network: "keras.Model", backbone: str, naming: Naming
) -> Sequence[tuple[str, tuple[Any, tuple[int, ...], Sequence[int]]]]:
    """For each tensor: its layer, its shape in the file, and the permutation of its axes for Keras."""
    places: list[tuple[str, tuple[Any, tuple[int, ...], Sequence[int]]]] = []
    for theirs, ours in zip(naming.pairs, NAMINGS[backbone][0].pairs, strict=True):
        convolution, norm = (network.get_layer(name) for name in ours)
        is_depthwise = type(convolution).__name__ == "DepthwiseConv2D"
        axes = DEPTHWISE_TO_KERAS if is_depthwise else TO_KERAS
        shape = tuple(int(side) for side in np.array(convolution.kernel.shape)[np.argsort(axes)])
        places += [(f"{theirs[0]}.{part}", (convolution, shape, axes)) for part in CONVOLUTION]
        places += [(f"{theirs[1]}.{part}", (norm, tuple(norm.gamma.shape), (0,))) for part in BATCH_NORM]
    return places


def _likeness(naming: Naming, tensors: Tensors) -> float:
    """Number of shared names divided by the number of all names, from 0 to 1."""
    needed, there = set(naming.tensors()), {name for name in tensors if not naming.is_needless(name)}
    return len(needed & there) / len(needed | there)


def _count(names: Sequence[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
