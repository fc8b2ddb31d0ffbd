"""`metrics.json`: a run's measures by split. fit and evaluate write it; all code that shows measures reads it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcar_tf.evaluating.columns import STREAMS, VARIANT_TITLES
from pipelines.files import write_text
from pipelines.reading import read_json_object

# Field -> the fields below it, where it is an object; every other field is a number or null.
_STREAM: Any = {"top3": {}}
_SPLIT: Any = dict.fromkeys(STREAMS, _STREAM) | {
    "localization": {"whole_image": {}},
    "steadiness": {variant: {} for variant in VARIANT_TITLES},
}
# What no such object may lack.
_COVERED = ("pointing_accuracy", "objects_covered_30", "objects_covered_50")
_NEEDED = {
    "localization": ("regions", "objects", "whole_image", *_COVERED),
    "whole_image": _COVERED,
    **dict.fromkeys(VARIANT_TITLES, ("changed",)),
}


def read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Split -> what `mcar_tf.evaluating.results.summarize` returned, with None for unknown numbers. Empty if no file.

    Raises:
        ValueError: a field is missing or not of its kind; the error names the file and the field.
    """
    if not path.is_file():
        return {}
    content = read_json_object(path)
    for split, measured in content.items():
        _check(path, split, measured, _SPLIT, ("images",))
    return content


def write_metrics(path: Path, split: str, measured: Mapping[str, Any]) -> None:
    """Put a split's measures into the file; those of other splits stay."""
    content = read_metrics(path) | {split: to_json(measured)}
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def to_json(value: Any) -> Any:
    """The same value with None instead of NaN, because JSON can't express NaN."""
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _check(path: Path, name: str, value: Any, objects: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse a value that is no object, or whose fields are not of their kind.

    Args:
        path: the file, for errors.
        name: of the object in it.
        value: the object.
        objects: the names of its fields that are objects, each with those of its own.
        needed: the names of fields that it must have.
    """
    if not isinstance(value, dict):
        raise _wrong(path, name, "an object with measures", value)
    for key, item in value.items():
        if key in objects:
            _check(path, f"{name}.{key}", item, objects[key], _NEEDED.get(key, ()))
        elif item is not None and (
            isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item)
        ):
            raise _wrong(path, f"{name}.{key}", "a number or null", item)
    for key in needed:
        if key not in value:
            raise ValueError(f"{path}: `{name}.{key}` is missing.")
    if value.get("changed", 0) is None:
        raise _wrong(path, f"{name}.changed", "a number", None)


def _wrong(path: Path, name: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{path}: `{name}` must be {expected}. Received: {str(value)[:40]!r}")
