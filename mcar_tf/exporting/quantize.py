"""Quantize the network of a float TFLite file to 8 bits, with the help of some pictures.

The backbone's convolutions are quantized in both passes, their weights per channel; weights are stored once. What
decides where to look and what is there stays in float: pooling, classifier, maps, localizer, crops. So do the sums of
residual blocks, whose range is wide and whose errors add up, and the first convolutions, whose errors pass through
all the others.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.lite.python import schema_py_generated as schema

from mcar_tf.exporting.flatbuffer import op_name, pack, unpack
from pipelines.command import without_noise

Array = npt.NDArray[Any]

BACKBONE = "backbone"  # the Keras model's name, which the converter keeps in the names of its tensors
# How many of the first convolutions stay in float: 1.7k of MobileNet-v2's 2.2M weights. docs/phones.md has the
# accuracy that each part in float gains, measured on a trained MobileNet-v2.
FLOAT_CONVOLUTIONS = 3
WHOLE_IMAGE = np.array([[[0, 0, 1, 1]]], np.float32)
CONVOLUTIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # op -> the channel axis of its weights


def quantize_tflite(content: bytes, calibration: Iterable[Array]) -> bytes:
    """Quantize the network of a float file.

    Args:
        content: bytes of a float TFLite file with the signatures `mcar` and `global_only`, and perhaps `look_at`.
        calibration: (S, S, 3) pictures of the file's input type, on which the activations' ranges are found.

    Raises:
        ValueError: litert-quantizer is not installed, there are no pictures, or the network has too few convolutions.
    """
    try:
        from litert_quantizer import qtyping, quantizer
        from litert_quantizer.algorithm_manager import AlgorithmName
    except ImportError:
        raise ValueError("int8 needs litert-quantizer: pip install 'mcar-tf[phone]'") from None
    samples = [{"image": picture[np.newaxis]} for picture in calibration]
    if not samples:
        raise ValueError("`calibration` must hold at least one picture. Received: none")

    model = unpack(content)
    if len(weights_of_global_pass(model)) <= FLOAT_CONVOLUTIONS:
        raise ValueError(
            f"int8 leaves the first {FLOAT_CONVOLUTIONS} convolutions of a network in float, and this one has no"
            " others: use dynamic or float16."
        )
    in_float = "|".join(re.escape(name) for name in first_convolutions(model))
    recipe = quantizer.Quantizer(pack(give_dead_channels_a_scale(model)))
    for op in CONVOLUTIONS:
        name = qtyping.TFLOperationName[op]
        recipe.add_static_config(BACKBONE, name, activation_num_bits=8, weight_num_bits=8)
        recipe.update_quantization_recipe(in_float, name, algorithm_key=AlgorithmName.NO_QUANTIZE)
    with quiet():
        data = {"mcar": samples, "global_only": samples}
        if any(signature.signatureKey == b"look_at" for signature in model.signatureDefs):
            # What it sees here does not matter: it is given the ranges that `mcar` has in its regions.
            data["look_at"] = [sample | {"boxes": WHOLE_IMAGE} for sample in samples[:1]]
        ranges = recipe.calibrate(data, num_threads=2)
        share_ranges(model, ranges)
        result = recipe.quantize(ranges, enable_progress_report=False).quantized_model
    # Unpack in any case: the quantizer writes constants after the tables, where neither metadata nor older runtimes
    # look for them.
    return pack(store_constants_once(unpack(result)))


def first_convolutions(model: schema.ModelT) -> list[str]:
    """Names of the first convolutions in every pass.

    They are identified by their weights, because branches may be in a different order in each pass, and a convolution
    in float in one pass and in 8 bits in another would have its weights stored twice. All passes over regions share
    their weights. The pass over the whole image shares them too, unless each stream's own statistics are folded in.
    """
    of_global = weights_of_global_pass(model)
    named = [
        (subgraph.tensors[op.inputs[1]].buffer, subgraph.tensors[op.outputs[0]].name.decode())
        for subgraph in model.subgraphs
        for op in convolutions(model, subgraph)
    ]
    of_regions = dict.fromkeys(weights for weights, _ in named if weights not in of_global)
    first = {*of_global[:FLOAT_CONVOLUTIONS], *list(of_regions)[:FLOAT_CONVOLUTIONS]}
    return [name for weights, name in named if weights in first]


def weights_of_global_pass(model: schema.ModelT) -> list[int]:
    """Buffers of the weights of the global pass's convolutions, in the order in which these run."""
    (index,) = (s.subgraphIndex for s in model.signatureDefs if s.signatureKey == b"global_only")
    subgraph = model.subgraphs[index]
    return [subgraph.tensors[operator.inputs[1]].buffer for operator in convolutions(model, subgraph)]


def share_ranges(model: schema.ModelT, ranges: dict[str, dict[str, Array]]) -> None:
    """Give each convolution the same ranges in all passes over regions, those of the signature `mcar`.

    A bias is stored as a multiple of its input's scale, with one scale per channel. If every pass had its own ranges,
    each would add a tenth of the weights' size to the file. The pass over the whole image keeps its own ranges.

    Args:
        model: the float model.
        ranges: `min` and `max` by tensor name, changed in place.
    """
    of_global = weights_of_global_pass(model)
    subgraphs = {bytes(s.signatureKey): model.subgraphs[s.subgraphIndex] for s in model.signatureDefs}
    passes: dict[tuple[bytes, int], list[schema.OperatorT]] = {}
    for signature in (b"mcar", b"look_at"):
        if signature not in subgraphs:
            continue
        subgraph = subgraphs[signature]
        for operator in convolutions(model, subgraph):
            passes.setdefault((signature, subgraph.tensors[operator.inputs[1]].buffer), []).append(operator)

    def ranges_at(end: str, signature: bytes, operators: list[schema.OperatorT]) -> list[dict[str, Array]]:
        tensors = subgraphs[signature].tensors
        names = [tensors[getattr(operator, end)[0]].name.decode() for operator in operators]
        return [ranges[name] for name in names if name in ranges]

    for (signature, weights), operators in passes.items():
        if signature != b"mcar":
            continue
        of_regions = operators[1:] if weights in of_global else operators  # the global pass runs first
        for end in ("inputs", "outputs"):
            found = ranges_at(end, signature, of_regions)
            if found:
                least = np.min([of_tensor["min"] for of_tensor in found], axis=0)
                most = np.max([of_tensor["max"] for of_tensor in found], axis=0)
                for of_tensor in found + ranges_at(end, b"look_at", passes.get((b"look_at", weights), [])):
                    of_tensor.update(min=least, max=most)


def store_constants_once(model: schema.ModelT) -> schema.ModelT:
    """Share constants of equal values and scales within a subgraph, and equal values across subgraphs."""
    buffers: dict[bytes, int] = {}
    for number, subgraph in enumerate(model.subgraphs):
        first: dict[tuple[object, ...], int] = {}
        place: dict[int, int] = {-1: -1}  # -1: an optional input that is not given
        kept: list[schema.TensorT] = []
        for index, tensor in enumerate(subgraph.tensors):
            key: tuple[object, ...] = (index,)
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data):
                tensor.buffer = buffers.setdefault(bytes(data), tensor.buffer)
                scale = None if tensor.quantization is None else tensor.quantization.scale
                key = (tensor.type, *tensor.shape, tensor.buffer, None if scale is None else bytes(scale))
            if key not in first:
                first[key] = len(kept)
                kept.append(tensor)
            place[index] = first[key]
        subgraph.tensors = kept
        for operator in (subgraph, *subgraph.operators):
            operator.inputs = [place[index] for index in operator.inputs]
            operator.outputs = [place[index] for index in operator.outputs]
        for signature in model.signatureDefs:
            if signature.subgraphIndex == number:
                for end in (*signature.inputs, *signature.outputs):
                    end.tensorIndex = place[end.tensorIndex]
    used = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    used |= {metadata.buffer for metadata in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    return model


def give_dead_channels_a_scale(model: schema.ModelT) -> schema.ModelT:
    """Give each channel whose weights are all (nearly) zero, so that it only outputs its bias, one small weight.

    The scale of a channel's weights comes from the largest of them, and the bias is stored as a 32-bit multiple of
    input scale x weight scale. Without a weight the bias overflows, which litert-quantizer does not prevent. The
    weight set here adds less than a thousandth of the bias.
    """
    for subgraph in model.subgraphs:
        for operator in convolutions(model, subgraph):
            weights, bias = (subgraph.tensors[index] for index in operator.inputs[1:3])
            values = _floats(model, weights).reshape(weights.shape).copy()
            by_channel = np.moveaxis(values, CONVOLUTIONS[op_name(model, operator)], 0)
            least = 1e-4 * np.abs(_floats(model, bias))
            dead = np.abs(by_channel).max(axis=(1, 2, 3)) < least
            by_channel[dead, 0, 0, 0] = least[dead]
            model.buffers[weights.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return model


def convolutions(model: schema.ModelT, subgraph: schema.SubGraphT) -> list[schema.OperatorT]:
    """The backbone's convolutions in a subgraph, in the order in which they run."""

    def is_one(operator: schema.OperatorT) -> bool:
        name = subgraph.tensors[operator.outputs[0]].name.decode()
        return op_name(model, operator) in CONVOLUTIONS and BACKBONE in name

    return [operator for operator in subgraph.operators if is_one(operator)]


def _floats(model: schema.ModelT, tensor: schema.TensorT) -> Array:
    """The float values of a constant."""
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide litert-quantizer's progress bars and warnings, LiteRT's greeting, and numpy's "divided by zero"."""
    logging.disable(logging.WARNING)
    try:
        with (
            without_noise(),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
