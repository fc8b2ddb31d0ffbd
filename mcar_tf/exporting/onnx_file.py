"""Write a model as one ONNX file for other runtimes; and load such a file as a function, to compare it here.

Letters: B pictures, C classes, N regions, S px a side.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mcar_tf.exporting.forms import Array, LoadedForm, Material, PictureBatch
from mcar_tf.models.crop import crop_and_resize_portable
from mcar_tf.models.mcar import Outputs
from pipelines.files import write_bytes

OPSET = 18  # of December 2022: onnxruntime from 1.14 on, OpenVINO from 2023 on


def write_form(material: Material, path: Path, precision: None = None) -> None:
    """Write the form `onnx` of the table of forms.

    It takes `image` (B, S, S, 3), float32 RGB in [0, 255], upright, and has the outputs of `MCAR.call`, without boxes
    if N = 0. `labels` and, if there are thresholds, `thresholds` are in the file's metadata, each a list in JSON.
    """
    import tf2onnx

    model = material.model
    image = tf.TensorSpec((None, model.image_size, model.image_size, 3), tf.float32, name="image")

    @tf.function(input_signature=[image], autograph=False)
    def mcar(image: tf.Tensor) -> Outputs:
        outputs = model(image, training=False, crop=crop_and_resize_portable)
        return outputs if model.top_n else {name: outputs[name] for name in outputs if "box" not in name}

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorFlow's functions that tf2onnx calls by their old names
        converted, _ = tf2onnx.convert.from_function(mcar, input_signature=[image], opset=OPSET)
    notes: dict[str, list[Any]] = {"labels": list(material.classes)}
    if material.thresholds is not None:
        notes["thresholds"] = [float(value) for value in material.thresholds]
    for key, value in notes.items():
        converted.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    write_bytes(path, converted.SerializeToString())


def load_form(path: Path) -> LoadedForm:
    """An ONNX file as a function of a batch of pictures, run by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def answer(batch: PictureBatch) -> dict[str, Array]:
        return dict(zip(names, session.run(None, {"image": batch["image"].astype(np.float32)}), strict=True))

    return LoadedForm(answer)
