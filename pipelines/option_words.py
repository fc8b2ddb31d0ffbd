"""What users read about options: the help of a command, and one line for a mistake in its options."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter

from pipelines.words import nearest, spell

EXPECTED = {int: "a whole number", float: "a number", Path: "a path", str: "a text", bool: "true or false"}
METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
OTHER_NAMES = {"model": "backbone", "arch": "backbone", "output": "out-dir"}  # what other programs call it


class PlainFormatter(DefaultHelpFormatter):
    """Shows an option's text and default, and no types of Python's."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, origin = action.help or "", getattr(action, "origin", "")
        if action.required:
            return f"{text} (required)"
        if origin:
            text = text.partition(" (default: ")[0]
        if action.default is None or action.default == argparse.SUPPRESS or "(default: " in text:
            return text
        return f"{text} (default: {_shown(action.default)}{origin})".replace("%", "%%")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def usage(prog: str, fields: Sequence["dataclasses.Field[Any]"], hints: Mapping[str, Any]) -> str:
    """The first line of a command's help: what must be given, and that there is more."""
    needed = [f"--{spell(field.name)} {metavar(hints[field.name])}" for field in fields]
    return " ".join([prog, *needed, "[options]"])


def metavar(hint: Any) -> str:
    """What stands for an option's value in the help."""
    kind = single_kind(hint)
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    return METAVARS.get(kind, "")


def single_kind(hint: Any) -> Any:
    """The type of one value of an option: `int` of `list[int] | None`."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint


def expected(hint: Any, received: str) -> str:
    """What an option's value must be, what was received, and the nearest value that is right: the end of an error."""
    kind = single_kind(hint)
    if typing.get_origin(kind) is typing.Literal:
        names = [str(name) for name in typing.get_args(kind)]
        return f"one of {', '.join(names)}. Received: {received!r}.{nearest(received, names)}"
    number = (
        re.match(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", received.replace(",", "."))
        if kind in (int, float)
        else None
    )
    fits = number and (kind is float or not number[1])
    meant = f" Did you mean `{number[0]}`?" if number and fits and number[0] != received else ""
    return f"{EXPECTED.get(kind, 'of another type')}. Received: {received!r}.{meant}"


def explain(message: str, hints: Mapping[str, Any], words: Sequence[str] = ()) -> str:
    """A message of the parser of options, in our words.

    Args:
        message: what jsonargparse or argparse says, in one line.
        hints: option, with underscores -> its type.
        words: of the command line.
    """
    if found := re.match(r'Parser key "(\w+)".*?(?:Got value|Given value):\s?(.*)$', message):
        name, value = found.groups()
        if name in hints:
            return f"`--{spell(name)}` must be {expected(hints[name], value.strip())}"
    if found := re.match(r'Parser key "config": (?:File does not exist: )?(.*)$', message):
        missing = "there is no file " if "File does not exist" in message else ""
        return f"`--config`: {missing}{found[1]}"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_word(found[1], hints, words)
    if found := re.match(r"Option '(\w+)' is not accepted", message):
        return f"there is no option `{found[1]}`.{nearest_option(found[1], hints)}"
    if found := re.match(r"argument --([\w-]+).*: expected (?:at least )?one argument", message):
        return f"`--{found[1]}` needs a value: {expected_words(hints.get(found[1].replace('-', '_')))}."
    if found := re.match(r"argument --([\w-]+)/--no-.*ignored explicit argument", message):
        return f"`--{found[1]}` takes no value: write --{found[1]} or --no-{found[1]}."
    if found := re.match(r"the following arguments are required: (.*)$", message):
        names = [f"`--{spell(name)}`" for name in found[1].split(", ")]
        return f"{' and '.join(names)} must be given."
    return message


def expected_words(hint: Any) -> str:
    """What an option's value must be."""
    return expected(hint, "").partition(". Received")[0]


def nearest_option(name: str, hints: Mapping[str, Any]) -> str:
    """The end of an error about an option that does not exist: ` Did you mean --learning-rate?`; or nothing."""
    name = name.lstrip("-").partition("=")[0].lower().replace("_", "-")
    options = [spell(option) for option in hints]
    initials = [option for option in options if "".join(word[0] for word in option.split("-")) == name]
    other = [OTHER_NAMES[name]] if OTHER_NAMES.get(name) in options else []
    for known in (*other, *initials):
        return f" Did you mean `--{known}`?"
    return nearest(name, options).replace("`", "`--", 1)


def _unknown_word(word: str, hints: Mapping[str, Any], words: Sequence[str]) -> str:
    if word.startswith("-"):
        return f"there is no option `{word}`.{nearest_option(word, hints)}"
    before = words[: words.index(word)] if word in words else []
    option = next((one for one in reversed(before) if one.startswith("--")), "")
    hint = hints.get(option.lstrip("-").removeprefix("no-").replace("-", "_"))
    if single_kind(hint) is bool:
        return f"`{option}` takes no value. Received: {word!r}"
    if hint is not None:
        return f"`{option}` takes one value. Received another: {word!r}"
    return f"{word!r} is no option: options begin with --."
