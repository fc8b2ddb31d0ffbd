"""Load an export folder: its model as a function of named tensors, its class names and its thresholds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from mcar_tf.exporting.folder import LABELS, THRESHOLDS, check_checksums, find_saved_model
from mcar_tf.runs.thresholds import DEFAULT_THRESHOLD
from mcar_tf.serving.batching import Tensors
from pipelines.pictures import read_picture
from pipelines.reading import read_json_object

DEFAULT_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A SavedModel that is ready to be called.

    Attributes:
        name: name of the export folder.
        version: the SavedModel's version, "1".
        labels: C class names.
        thresholds: C probabilities from which on a class counts as present.
        decision: what the thresholds are, in words.
        inputs: signature -> input's name -> its type and shape without the first dimension.
        outputs: signature -> names of its outputs.
        metadata: what TensorFlow Serving reports about its signatures.
    """

    name: str
    version: str
    labels: Sequence[str]
    thresholds: Sequence[float]
    decision: str
    inputs: Mapping[str, Mapping[str, tf.TensorSpec]]
    outputs: Mapping[str, Sequence[str]]
    metadata: Mapping[str, Any]
    _signatures: Mapping[str, Any]

    # What TensorFlow raises for inputs that a graph does not accept.
    errors = tf.errors.InvalidArgumentError

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Named inputs -> named outputs, row for row.

        Raises:
            tf.errors.OpError, ValueError: the signature does not accept the inputs.
        """
        specs = self.inputs[signature]
        tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in self._signatures[signature](**tensors).items()}


def load_served_model(folder: Path) -> ServedModel:
    """Load the SavedModel of an export folder, and call it once.

    Raises:
        FileNotFoundError: the folder is not an export folder, or has no SavedModel.
        ValueError: a file in it is not what was exported.
    """
    path = find_saved_model(folder)
    check_checksums(folder, ("saved_model/", LABELS, THRESHOLDS))
    signatures = tf.saved_model.load(str(path)).signatures
    labels = (folder / LABELS).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    thresholds, decision = _read_thresholds(folder, labels)
    model = ServedModel(
        name=folder.resolve().name,
        version=path.name,
        labels=labels,
        thresholds=thresholds,
        decision=decision,
        inputs={name: signatures[name].structured_input_signature[1] for name in signatures},
        outputs={name: sorted(signatures[name].structured_outputs) for name in signatures},
        metadata=_describe_signatures(path),
        _signatures=signatures,
    )
    grey = tf.io.encode_jpeg(np.full((64, 64, 3), 127, np.uint8)).numpy()
    # The first picture takes seconds, for which no client should have to wait.
    read_picture(grey)
    probs = model.run(DEFAULT_SIGNATURE, {"encoded": np.array([grey], object)})["probs"]
    if probs.shape != (1, len(labels)):
        raise ValueError(f"{folder / LABELS} has {len(labels)} names, the model {probs.shape[1]} classes.")
    return model


def _read_thresholds(folder: Path, labels: Sequence[str]) -> tuple[list[float], str]:
    path = folder / THRESHOLDS
    if not path.is_file():
        return [DEFAULT_THRESHOLD] * len(labels), f"{DEFAULT_THRESHOLD:g} for every class"
    own = read_json_object(path)
    thresholds = [
        value for name in labels if isinstance(value := own.get(name), int | float) and 0 <= value <= 1
    ]
    if len(thresholds) != len(labels):
        raise ValueError(f"{path} does not hold a threshold from 0 to 1 for each name of {LABELS}.")
    return [float(value) for value in thresholds], f"each class's own, from {path}"


def _describe_signatures(path: Path) -> dict[str, Any]:
    """Describe the signatures in the form of TensorFlow Serving's metadata."""
    (graph, *_) = parse_saved_model(str(path)).meta_graphs
    described = {
        name: json.loads(json_format.MessageToJson(signature, preserving_proto_field_name=True))
        for name, signature in graph.signature_def.items()
        if not name.startswith("__")
    }
    return {"signature_def": {"signature_def": described}}
