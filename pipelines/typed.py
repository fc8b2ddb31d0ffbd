"""Turn values of JSON into our dataclasses, or raise an error that names the file and the field.

Each value must have the type that its dataclass declares. `pipelines.reading` reads the file.
"""

import dataclasses
import functools
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")

WHAT = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_json(kind: type[T], value: Any, where: str, **given: Any) -> T:
    """Turn a value of JSON into a dataclass, in which every field has the type that it declares.

    Args:
        kind: the dataclass. Its fields are int, float, str, bool, other dataclasses, optional ones, and
            `tuple[X, ...]` and `dict[str, X]` of these.
        value: as `json.loads` gives it.
        where: the file or the field, for errors.
        given: fields of `kind` that are not in the JSON.

    Raises:
        ValueError: names the field, what it must be and what it is.
    """
    return _dataclass(kind, value, f"{where}: ", "", given)


def _dataclass(kind: Any, value: Any, file: str, field: str, given: dict[str, Any]) -> Any:
    hints, optional = _fields(kind)
    if not isinstance(value, dict):
        raise _wrong(file, field, "an object", value)
    before = field and field + "."
    for name in value:
        if name not in hints or name in given:
            raise ValueError(f"{file}`{before}{_shown(name)}` is no field that we know.")
    for name in hints.keys() - optional - value.keys() - given.keys():
        raise ValueError(f"{file}`{before}{name}` is missing.")
    read = {name: _typed(hints[name], one, file, before + name) for name, one in value.items()}
    return kind(**read, **given)


def _typed(kind: Any, value: Any, file: str, field: str) -> Any:
    if kind in (int, float, str, bool):
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right or (kind is float and not math.isfinite(value)) or (kind is int and abs(value) >= 2**63):
            raise _wrong(file, field, WHAT[kind], value)
        return kind(value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, file, field, {})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        (kind,) = (one for one in arguments if one is not type(None))
        return None if value is None else _typed(kind, value, file, field)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(file, field, "a list", value)
        if arguments[0] is int and {*map(type, value)} == {int} and max(map(abs, value)) < 2**63:
            return tuple(value)  # a shortcut for lists with thousands of classes
        return tuple(_typed(arguments[0], one, file, f"{field}[{i}]") for i, one in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(file, field, "an object", value)
        return {
            name: _typed(arguments[1], one, file, f"{field}.{_shown(name)}") for name, one in value.items()
        }
    raise TypeError(f"{kind} is not read from JSON")


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields' types, and the names of those that have a default."""
    optional = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    return typing.get_type_hints(kind), frozenset(optional)


def _wrong(file: str, field: str, what: str, value: Any) -> ValueError:
    named = f"`{field}`" if field else "it"
    return ValueError(f"{file}{named} must be {what}. Received: {value!r:.60}")


def _shown(name: str) -> str:
    return repr(name)[1:-1][:60]
