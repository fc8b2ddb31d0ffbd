"""Describe the bodies of requests and answers, for `/openapi.json`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic takes Python's own from 3.12 on

from mcar_tf.serving.served_model import ServedModel

# ------------------------------------------------------------------ answers


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")  # an answer holds what is described here, and nothing else


class Error(_Answer):
    """Why there is no other answer, in one line."""

    error: str


class Health(_Answer):
    """That the server runs."""

    status: Literal["ok"]


class Code(_Answer):
    """TensorFlow Serving's code of a state."""

    error_code: str
    error_message: str


class State(_Answer):
    """The state of one version of the model."""

    version: str
    state: str
    status: Code


class Status(_Answer):
    """The states of the model's versions."""

    model_version_status: list[State]


class Spec(_Answer):
    """Which model it is."""

    name: str
    signature_name: str
    version: str


class Metadata(_Answer):
    """The model's signatures, as TensorFlow Serving describes them."""

    model_spec: Spec
    metadata: dict[Literal["signature_def"], dict[Literal["signature_def"], dict[str, Any]]]


# ymin, xmin, ymax, xmax as fractions of the upright picture. Lists, as FastAPI writes wrong schemas for tuples.
Box = Annotated[list[float], Field(min_length=4, max_length=4)]
Scored = Annotated[list[str | float], Field(min_length=2, max_length=2)]  # a label and its score


class Row(TypedDict, total=False):
    """A picture's outputs; which of them there are depends on the signature."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    probs: list[float]
    global_probs: list[float]
    local_probs: list[float]
    region_probs: list[list[float]]
    boxes: list[Box]
    box_classes: list[int]
    box_probs: list[float]
    classes: list[str]
    scores: list[float]
    valid: bool


class Columns(TypedDict, total=False):
    """The outputs of all pictures, each as one list."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    probs: list[list[float]]
    global_probs: list[list[float]]
    local_probs: list[list[float]]
    region_probs: list[list[list[float]]]
    boxes: list[list[Box]]
    box_classes: list[list[int]]
    box_probs: list[list[float]]
    classes: list[list[str]]
    scores: list[list[float]]
    valid: list[bool]


class Predictions(_Answer):
    """What a predict request with `instances` gets."""

    predictions: list[Row]


class Outputs(_Answer):
    """What a predict request with `inputs` gets."""

    outputs: Columns


class Classes(_Answer):
    """For each picture, every label with its score, most probable first, and the labels that are present."""

    results: list[list[Scored]]
    present: list[list[str]]


class Label(_Answer):
    """A class that is present."""

    name: str
    prob: float


class Picture(_Answer):
    """What is in a picture."""

    name: str
    labels: list[Label]
    probs: list[float]
    global_probs: list[float]
    boxes: list[Box]
    box_classes: list[int]


class Unreadable(_Answer):
    """Why a file has no answer."""

    name: str
    error: str


class Look(_Answer):
    """The answers for an upload's files, in their order."""

    pictures: list[Picture | Unreadable] = Field(min_length=1)
    milliseconds: float


Responses = dict[int | str, dict[str, Any]]


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


# What any request can get.
ERRORS: Responses = {
    413: {"description": "The body is too large.", "model": Error},
    500: {"description": "Something broke in the server.", "model": Error},
    503: _text("There are too many connections."),
}
# What a request that asks the model can get besides.
MODEL_ERRORS: Responses = ERRORS | {
    400: {"description": "It is no such request, or no picture.", "model": Error},
    429: {
        "description": "Too many pictures wait already.",
        "model": Error,
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
    504: {"description": "It took too long.", "model": Error},
}
METRICS: Responses = ERRORS | {200: _text("Prometheus' text.")}

# ------------------------------------------------------------------ requests

_FILE = {
    "type": "object",
    "properties": {"b64": {"type": "string", "pattern": "^(?:[A-Za-z0-9+/]{4})*$"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _files(*ways: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": 16, "items": {"anyOf": list(ways)}}


_ROWS = _files(_FILE, _object(encoded=_FILE))
CLASSIFY_BODY = _json(_object(examples=_ROWS))


def upload_body(most: int) -> dict[str, Any]:
    """The body of `/look`: up to `most` pictures."""
    files = {
        "type": "array",
        "minItems": 1,
        "maxItems": most,
        "items": {"type": "string", "format": "binary"},
    }
    named = {
        "required": True,
        "schema": {"type": "string"},
        "example": 'form-data; name="images"; filename="a.jpg"',
    }
    form = {
        "schema": _object(images=files) | {"additionalProperties": False},
        "encoding": {"images": {"contentType": "image/*", "headers": {"Content-Disposition": named}}},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


def predict_body(model: ServedModel) -> dict[str, Any]:
    """The body of `:predict`: files as rows or as a column, for one of the signatures that take nothing else."""
    names = sorted(name for name, specs in model.inputs.items() if set(specs) == {"encoded"})
    column = _files(_FILE)
    named = _object(encoded=column) | {"additionalProperties": False}
    ways = [_object(instances=_ROWS), _object(inputs={"anyOf": [column, named]})]
    for way in ways:
        way["properties"]["signature_name"] = {"type": "string", "enum": names}
    ways[0]["not"], ways[1]["not"] = {"required": ["inputs"]}, {"required": ["instances"]}
    return _json({"anyOf": ways})
