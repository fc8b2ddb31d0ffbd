"""Schemas of the bodies of requests and answers, for `/openapi.json`."""

from typing import Any

from mcar_tf.serving.served_model import ServedModel

_ERROR = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
        }
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "It is no such request, or no picture; in one line.", **_ERROR},
    413: {"description": "The body is too large.", **_ERROR},
    429: {"description": "Too much waits already.", **_ERROR},
    504: {"description": "It took too long.", **_ERROR},
    "4XX": {"description": "Any other mistake.", **_ERROR},
}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

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
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _object(
                    images={"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                )
                | {"additionalProperties": False}
            }
        },
    }
}


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
