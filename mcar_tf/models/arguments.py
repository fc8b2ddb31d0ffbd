"""Check what Python users give a function, by its annotations: one line for a wrong name or type."""

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from pipelines.words import expected, is_of, nearest

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that refuses, before it runs, what its annotations do not allow.

    It raises a TypeError for an argument that it does not have, and a ValueError for a value of another type. Types
    that `pipelines.words.EXPECTED` does not know, such as a model of Keras', are left to the function.
    """
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for name in kwargs:
            if name not in parameters:
                raise TypeError(f"`{function.__name__}` has no argument `{name}`.{nearest(name, parameters)}")
        hints = typing.get_type_hints(function)
        for name, value in (*zip(parameters, args, strict=False), *kwargs.items()):
            if not is_of(hints[name], value):
                raise ValueError(f"`{name}` must be {expected(hints[name], value)}")
        return function(*args, **kwargs)

    return call


def check_choice(name: str, value: str, valid: Sequence[str]) -> None:
    """Raise `ValueError` for a value that is none of the valid ones."""
    if value not in valid:
        raise ValueError(
            f"`{name}` must be one of {', '.join(valid)}. Received: {value!r}.{nearest(str(value), valid)}"
        )
