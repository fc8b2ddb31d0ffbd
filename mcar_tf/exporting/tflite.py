"""Write a model as one TFLite file of built-in ops for phones; and load such a file as a function, to try it here.

Letters: C classes, N regions, S px a side. A phone looks at one picture at a time: the batch is 1.
"""

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mcar_tf.exporting.flatbuffer import op_name, unpack
from mcar_tf.exporting.forms import (
    GLOBAL_ONLY,
    LOOK_AT,
    LOOKED_AT,
    PRECISIONS,
    Array,
    LoadedForm,
    Material,
    PictureBatch,
)
from mcar_tf.exporting.metadata import add_metadata
from mcar_tf.exporting.quantize import quantize_tflite
from mcar_tf.models.crop import crop_and_resize_portable
from mcar_tf.models.mcar import MCAR, Outputs
from pipelines.command import without_noise

# Pixels of the regions in a batch: the activations of more fit no cache, and each batch takes its own memory and
# its own time to prepare the weights (docs/phones.md).
PIXELS_AT_ONCE = 2 * 256**2


def write_form(material: Material, path: Path, precision: str) -> None:
    """Write one of the TFLite forms of the table of forms."""
    calibration = material.calibration() if precision == "int8" and material.calibration else None
    write_tflite(
        material.model,
        material.classes,
        path,
        precision,
        calibration,
        input_type=material.tflite_input,
        thresholds=material.thresholds,
        temperature=material.temperature,
    )


def write_tflite(
    model: MCAR,
    classes: Sequence[str],
    path: Path,
    precision: str = "float32",
    calibration: Iterable[Array] | None = None,
    *,
    input_type: str = "float32",
    thresholds: Sequence[float] | None = None,
    temperature: float = 1.0,
) -> None:
    """Write a model as one file with three signatures that share one set of weights, and the class names inside.

    All take `image` (1, S, S, 3), RGB in [0, 255], upright. `mcar` has the outputs of `MCAR.call` (no boxes if
    N = 0). `global_only` runs the global pass only: it gives `global_probs`, and the regions to look at, `boxes` and
    `box_classes`. `look_at` looks at one region: it also takes `boxes` (1, 1, 4), and gives `probs` (1, C). It is
    missing if N = 0.

    Args:
        model: any MCAR model.
        classes: C names.
        path: the file to write.
        precision: "float32"; "float16": weights of half the size; "dynamic": weights of a quarter of the size (8
            bits), activations quantized at run time; "int8": the whole network in 8 bits, ranges from `calibration`.
        calibration: a few hundred (S, S, 3) pictures that look like what the phone will see.
        input_type: type of `image`, "float32" or "uint8".
        thresholds: C probabilities from which on a class counts as present, stored in the file; None: there are none.
        temperature: that with which `calibrate` turns probabilities into frequencies, stored in the file.

    Raises:
        ValueError: int8 without calibration pictures; or an op that is not built in.
    """
    content = convert_tflite(model, precision, calibration, input_type=input_type)
    is_float = input_type == "float32"
    path.write_bytes(
        add_metadata(content, classes, is_float=is_float, thresholds=thresholds, temperature=temperature)
    )


def convert_tflite(
    model: MCAR,
    precision: str = "float32",
    calibration: Iterable[Array] | None = None,
    *,
    input_type: str = "float32",
) -> bytes:
    """The content of the file that `write_tflite` writes, without metadata."""
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}. Received: {precision!r}")
    if (precision == "int8") != (calibration is not None):
        raise ValueError("`calibration` pictures are what int8 needs, and int8 alone.")
    content = _convert(model, "float32" if precision == "int8" else precision, input_type)
    if calibration is not None:
        content = quantize_tflite(content, (as_input(picture, input_type) for picture in calibration))
    foreign = {op for ops in list_ops(content).values() for op in ops if op.startswith("CUSTOM")}
    if foreign:
        raise ValueError(f"The model needs ops that TFLite has not built in: {', '.join(sorted(foreign))}")
    return content


def as_input(picture: Array, input_type: str) -> Array:
    """A picture of floats in [0, 255], converted to the file's input type."""
    return np.round(picture).astype(np.uint8) if input_type == "uint8" else picture


def _convert(model: MCAR, precision: str, input_type: str) -> bytes:
    """Convert with TensorFlow's converter alone, which can do every precision but int8."""
    with tempfile.TemporaryDirectory() as folder:
        functions = _freeze_signatures(model, tf.dtypes.as_dtype(input_type))
        # Without the gradients that some activations define: they hold on to tensors outside of these functions.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(tf.Module(), folder, signatures=functions, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        # The converter then fails on anything that would need TensorFlow's own ops ("Flex") or custom ones.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def list_ops(content: bytes) -> dict[str, Counter[str]]:
    """How often each op occurs in each signature of a TFLite file; one that is not built in is `CUSTOM name`."""
    model = unpack(content)
    return {
        signature.signatureKey.decode(): Counter(
            op_name(model, operator) for operator in model.subgraphs[signature.subgraphIndex].operators
        )
        for signature in model.signatureDefs
    }


def load_runner(content: bytes, signature: str = "mcar", threads: int = 1) -> Any:
    """A signature of a TFLite file as a function: `runner(image=...)` -> outputs; `look_at` takes `boxes=` too.

    `image` is (1, S, S, 3), of the file's input type. The function runs in LiteRT, as on phones, if `ai-edge-litert`
    is installed, else in TensorFlow's copy of it.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    with warnings.catch_warnings(), without_noise():
        # TensorFlow's copy warns that LiteRT replaces it.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()  # what its delegate prints, it prints here
        return interpreter.get_signature_runner(signature)


def load_form(path: Path) -> LoadedForm:
    """A TFLite file as a function of a batch of pictures, to compare it with its model."""
    content = path.read_bytes()
    runners = {signature: load_runner(content, signature) for signature in list_ops(content)}
    dtype = runners["mcar"].get_input_details()["image"]["dtype"]

    def look(image: Array) -> dict[str, Array]:
        once = runners[GLOBAL_ONLY](image=image)
        outputs = runners["mcar"](image=image) | {GLOBAL_ONLY: once["global_probs"]}
        if LOOK_AT in runners:
            boxes = once["boxes"][:, :1]
            outputs |= {LOOKED_AT: boxes, LOOK_AT: runners[LOOK_AT](image=image, boxes=boxes)["probs"]}
        return outputs

    def answer(batch: PictureBatch) -> dict[str, Array]:
        rows = [look(image[np.newaxis].astype(dtype)) for image in batch["image"]]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return LoadedForm(answer, whole_levels=dtype == np.uint8)


def _freeze_signatures(model: MCAR, dtype: tf.DType) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    """The signatures with weights as constants, so that the converter stores equal ones only once."""
    regions_at_once = max(2, PIXELS_AT_ONCE // model.local_size**2)

    def mcar(image: tf.Tensor) -> Outputs:
        outputs = model(image, training=False, crop=crop_and_resize_portable, regions_at_once=regions_at_once)
        return outputs if model.top_n else {name: outputs[name] for name in outputs if "box" not in name}

    def global_only(image: tf.Tensor) -> Outputs:
        return model.glance(image)

    def look_at(image: tf.Tensor, boxes: tf.Tensor) -> Outputs:
        return {"probs": tf.sigmoid(model.look_at(image, boxes, crop=crop_and_resize_portable)[:, 0])}

    image = tf.TensorSpec((1, model.image_size, model.image_size, 3), dtype, name="image")
    signatures = {"mcar": _freeze(mcar, image), GLOBAL_ONLY: _freeze(global_only, image)}
    if model.top_n:
        signatures[LOOK_AT] = _freeze(look_at, image, tf.TensorSpec((1, 1, 4), tf.float32, name="boxes"))
    return signatures


def _freeze(
    function: Callable[..., Outputs], *specs: tf.TensorSpec
) -> tf.types.experimental.PolymorphicFunction:
    with_variables = tf.function(function, autograph=False).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(with_variables)
    graph = frozen.graph.as_graph_def()
    names = sorted(with_variables.structured_outputs)

    @tf.function(input_signature=specs, autograph=False)
    def with_constants(*values: tf.Tensor) -> Outputs:
        inputs = {place.name: value for place, value in zip(frozen.inputs, values, strict=True)}
        outputs = [output.name for output in frozen.outputs]
        return dict(zip(names, tf.graph_util.import_graph_def(graph, inputs, outputs, name=""), strict=True))

    return with_constants
