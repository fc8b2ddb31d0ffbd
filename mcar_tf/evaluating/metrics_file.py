"""`metrics.json`: a run's measures by split. fit and evaluate write it; all code that shows measures reads it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcar_tf.evaluating.columns import STREAMS
from pipelines.files import write_text
from pipelines.reading import read_json_object


def read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Split -> what `mcar_tf.evaluating.results.summarize` returned, with None for unknown numbers. Empty if no file.

    Raises:
        ValueError: an entry does not hold numbers as it should; the error names the file and the entry.
    """
    if not path.is_file():
        return {}
    content = read_json_object(path)
    for split, measured in content.items():
        if not isinstance(measured, dict):
            raise _wrong(path, split, "the measures of a split", measured)
        _check_numbers(path, split, measured)
        for stream in STREAMS:
            if stream in measured and not isinstance(measured[stream], dict):
                raise _wrong(path, f"{split}.{stream}", "the measures of a stream", measured[stream])
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


def _check_numbers(path: Path, name: str, value: Any) -> None:
    """Refuse a value that is neither a number, nor None, nor an object that holds only such values."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(path, f"{name}.{key}", item)
    elif value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ):
        raise _wrong(path, name, "a number or null", value)


def _wrong(path: Path, name: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{path}: `{name}` must be {expected}. Received: {str(value)[:40]!r}")
