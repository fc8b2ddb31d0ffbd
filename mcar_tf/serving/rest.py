"""Convert TensorFlow Serving's JSON to tensors and back (tensorflow.org/tfx/serving/api_rest)."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mcar_tf.serving.batching import Tensors

SPECIFIC = "signature_name"


class Spec(Protocol):
    """Type and shape of a signature's input."""

    dtype: Any
    shape: Any


class RefusedError(Exception):
    """A request that is answered with an error status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, " ".join(line.split())[:300]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asks for.

    Attributes:
        signature: a signature of the model.
        inputs: by name, all with the same number of rows.
        by_row: whether the answer is a list of rows; otherwise it is columns.
    """

    signature: str
    inputs: Tensors
    by_row: bool


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object.

    Raises:
        RefusedError: it is not a JSON object.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "The body is not JSON.") from None
    if not isinstance(content, dict):
        raise RefusedError(400, "The body must be a JSON object.")
    return content


def parse_predict(body: bytes, signatures: Mapping[str, Mapping[str, Spec]], default: str) -> Request:
    """Parse the body of a predict request: `instances`, a list of rows, or `inputs`, columns.

    Args:
        body: JSON.
        signatures: the model's signatures: name -> input -> its type and shape.
        default: the signature for a request that names none.

    Raises:
        RefusedError: it is not such a body, or does not fit the signature's inputs.
    """
    content = parse_json(body)
    signature = content.get(SPECIFIC, default)
    signature = default if signature == "" else signature
    if not isinstance(signature, str) or signature not in signatures:
        raise RefusedError(400, f"`{SPECIFIC}` must be one of {', '.join(sorted(signatures))}.")
    specs = signatures[signature]
    if ("instances" in content) == ("inputs" in content):
        raise RefusedError(400, "The body must hold either `instances` or `inputs`.")
    by_row = "instances" in content
    columns = _columns_of_rows(content["instances"], specs) if by_row else content["inputs"]
    if not isinstance(columns, dict):
        if len(specs) > 1:
            raise RefusedError(400, f"`inputs` must name {', '.join(sorted(specs))}.")
        columns = {next(iter(specs)): columns}
    return Request(signature, _to_tensors(columns, specs), by_row)


def parse_classify(body: bytes, specs: Mapping[str, Spec]) -> Tensors:
    """Parse the body of a classify request: `examples`, one `{"encoded": {"b64": ...}}` per picture."""
    content = parse_json(body)
    return _to_tensors(_columns_of_rows(content.get("examples"), specs, "examples"), specs)


def format_predict(request: Request, outputs: Tensors) -> dict[str, Any]:
    """The answer to a predict request, as TensorFlow Serving gives it: a single output is given without its name."""
    columns = {name: _to_json(value) for name, value in outputs.items()}
    if not request.by_row:
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": rows if len(columns) > 1 else next(iter(columns.values()))}


def format_classify(
    outputs: Tensors, labels: Sequence[str], thresholds: Sequence[float]
) -> dict[str, list[Any]]:
    """The answer to a classify request: `results`, [label, score] with the most probable first; and `present`, the
    labels whose score reaches their threshold. Both are empty for an entry that is not a picture.

    Args:
        outputs: `probs` (B, C) and `valid` (B,).
        labels: C names.
        thresholds: C probabilities.
    """
    results, present = [], []
    for probs, valid in zip(outputs["probs"], outputs["valid"], strict=True):
        order = np.argsort(-probs, kind="stable").tolist() if valid else []
        results.append([[labels[c], float(probs[c])] for c in order])
        present.append([labels[c] for c in order if probs[c] >= thresholds[c]])
    return {"results": results, "present": present}


def _columns_of_rows(rows: Any, specs: Mapping[str, Spec], name: str = "instances") -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise RefusedError(400, f"`{name}` must be a list of at least one.")
    if len(specs) == 1:  # a row may be given with or without the input's name
        (only,) = specs
        return {only: [row[only] if isinstance(row, dict) and only in row else row for row in rows]}
    if not all(isinstance(row, dict) and set(row) == set(specs) for row in rows):
        raise RefusedError(400, f"Each of `{name}` must name {', '.join(sorted(specs))}.")
    return {input_name: [row[input_name] for row in rows] for input_name in specs}


def _to_tensors(columns: Mapping[str, Any], specs: Mapping[str, Spec]) -> Tensors:
    if set(columns) != set(specs):
        raise RefusedError(400, f"The inputs must be {', '.join(sorted(specs))}.")
    tensors = {name: _to_tensor(name, columns[name], spec) for name, spec in specs.items()}
    if len({len(value) for value in tensors.values()}) > 1:
        raise RefusedError(400, "All inputs must have the same number of rows.")
    return tensors


def _to_tensor(name: str, value: Any, spec: Spec) -> npt.NDArray[Any]:
    """Convert JSON to an array with at least one row, of the spec's type."""
    if not isinstance(value, list) or not value:
        raise RefusedError(400, f"`{name}` must be a list of at least one.")
    if spec.dtype.name == "string":
        return np.array([_to_bytes(name, item) for item in value], object)
    try:
        array = np.array(value)
    except ValueError:  # lists of different lengths
        raise RefusedError(400, f"`{name}` must hold lists of one length.") from None
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    right = array.dtype.kind in "iuf" if wanted.kind == "f" else array.dtype.kind in "iu"
    if not right or not spec.shape.is_compatible_with(array.shape) or not array.size:
        raise RefusedError(400, f"`{name}` must be {wanted.name} of the shape {spec.shape}.")
    if wanted.kind != "f":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise RefusedError(400, f"`{name}` must lie in [{limits.min}, {limits.max}].")
    elif not np.isfinite(array).all():
        raise RefusedError(400, f"`{name}` must be finite.")
    return array.astype(wanted)


def _to_bytes(name: str, item: Any) -> bytes:
    if not isinstance(item, dict) or set(item) != {"b64"} or not isinstance(item["b64"], str):
        raise RefusedError(400, f'`{name}` must be files in base64: {{"b64": "..."}}.')
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, f"`{name}` is not base64.") from None


def _to_json(value: npt.NDArray[Any]) -> list[Any]:
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise RefusedError(500, "The model's answer holds no numbers: its file is damaged.")
    if value.dtype == object:
        return [[item.decode() for item in row] for row in value]
    rows: list[Any] = value.tolist()
    return rows
