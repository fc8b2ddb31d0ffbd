"""What users read about options: the help of a command, and one line for a mistake in its options."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter

from pipelines.reading import read_yaml
from pipelines.words import expected, is_of, nearest, single_kind, spell

METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
# What a word without an option names, where the command has that option: a file, or else a name or folder.
OF_FILES, OF_FOLDERS = ("images", "source", "run"), ("run", "dataset")
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


def explain(message: str, hints: Mapping[str, Any], words: Sequence[str] = ()) -> str:
    """A message of the parser of options, in our words.

    Args:
        message: what jsonargparse or argparse says, in one line.
        hints: option, with underscores -> its type.
        words: of the command line.
    """
    for path in _config_files(words):
        if not Path(path).is_file():
            kind = ", which is a folder" if Path(path).is_dir() else ""
            return f"`--config`: there is no file {path!r}{kind}."
        if fault := _fault_of(read_yaml(Path(path)), hints):
            return f"{path}: {fault}"
    if found := re.match(r'Parser key "(\w+)".*?(?:Got value|Given value):\s?(.*)$', message):
        name, value = found.groups()
        if name in hints:
            return f"`--{spell(name)}` must be {_expected_of_word(hints[name], value.strip())}"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_word(found[1], hints, words)
    if found := re.match(r"argument --([\w-]+).*: expected (?:at least )?one argument", message):
        return f"`--{found[1]}` needs a value: {_needed(found[1], hints)}."
    if found := re.match(r"argument --([\w-]+)/--no-.*ignored explicit argument", message):
        return f"`--{found[1]}` takes no value: write --{found[1]} or --no-{found[1]}."
    if found := re.match(r'Invalid option "(.*?)" for --print_config', message):
        return f"`--print_config` takes no value. Received: {found[1]!r}"
    if found := re.match(r"the following arguments are required: (.*)$", message):
        names = [f"`--{spell(name)}`" for name in found[1].split(", ")]
        return f"{' and '.join(names)} must be given."
    return message


def _config_files(words: Sequence[str]) -> Iterator[str]:
    """The files of options that a command line names, as it names them."""
    for word, following in zip(words, [*words, ""][1:], strict=False):
        name, equals, value = word.partition("=")
        if name == "--config" and (equals or following):
            yield value if equals else following


def _fault_of(options: Mapping[Any, Any], hints: Mapping[str, Any]) -> str:
    """The first option from a file that is unknown or of another type, or nothing."""
    for name, value in options.items():
        hint = hints.get(str(name).replace("-", "_"))
        if hint is None:
            near = nearest_option(str(name), hints).replace("--", "").replace("-", "_")
            return f"there is no option `{name}`.{near}"
        if value is not None and not is_of(hint, value, texts=True):
            is_name = type(value) in (int, float) and is_of(hint, str(value))  # of digits alone
            quoted = f" Did you mean `'{value}'`?" if is_name else ""
            return f"`{name}` must be {expected(hint, value)}{quoted}"
    return ""


def _needed(option: str, hints: Mapping[str, Any]) -> str:
    if option == "config":
        return "the path of a file of options"
    return expected_words(single_kind(hints.get(option.replace("-", "_"))))


def _expected_of_word(hint: Any, word: str) -> str:
    """What one word of an option's value must be, what was received, and the nearest right words."""
    kind = single_kind(hint)
    parts = [part for part in re.split(r"[,;]", word) if part]
    decimal = kind is float and re.fullmatch(r"\d+,\d+", word)  # 0,1 is rather 0.1 than 0 and 1
    is_several = kind is not hint and len(parts) > 1 and not decimal
    if is_several and all(is_of(kind, part, texts=True) for part in parts):
        return f"{expected_words(kind)}. Received: {word!r}. Did you mean `{' '.join(parts)}`?"
    return expected(kind, word)


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
    names = OF_FILES if Path(word).suffix[1:].isalpha() else OF_FOLDERS
    name = next((name for name in names if name in hints), "")
    value = Path(word).name if name == "dataset" else word
    meant = f" Did you mean `--{name} {value}`?" if name else ""
    return f"{word!r} is no option: options begin with --.{meant}"
