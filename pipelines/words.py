"""Write values for people: options, what they must be, percentages, the nearest valid name, names of others."""

import difflib
import math
import numbers
import os
import re
import sys
import types
import typing
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

UNKNOWN = "-"
# Types of options and arguments -> what a value must be, and the types that it may have.
EXPECTED: dict[Any, tuple[str, Any]] = {
    bool: ("true or false", bool),
    int: ("a whole number", numbers.Integral),
    float: ("a number", numbers.Real),
    str: ("a text", str),
    Path: ("a path", str | os.PathLike),
}
YES_OR_NO = ("true", "false", "yes", "no")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
# Marks that change the direction of the text after them.
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def spell(name: str) -> str:
    """An option as users type it, without its dashes: `image_size` -> `image-size`."""
    return name.replace("_", "-")


def typed(module: str) -> str:
    """How users start a command: `mcar fit` where they use the script `mcar`, else `python -m mcar_tf.fit`."""
    if Path(sys.argv[0]).stem != "mcar":
        return f"python -m {module}"
    return "mcar " + {"pipelines.benchmark": "benchmark_pipeline"}.get(module, module.rpartition(".")[2])


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.8324 -> 83.2. A dash for what is unknown, None or NaN."""
    if fraction is None or math.isnan(fraction):
        return UNKNOWN
    return f"{100 * fraction:.{digits}f}"


def counted(count: int, noun: str) -> str:
    """A number of things: `1 shard`, `1,200 shards`, `2 classes`."""
    ending = "es" if noun.endswith(("s", "x")) else "s"
    return f"{count:,} {noun}{ending * (count != 1)}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: ` Did you mean X?`, with the valid name nearest to `name`; or nothing."""
    known = {one.lower().replace("-", "_"): one for one in valid}
    matcher = difflib.SequenceMatcher(b=name.lower().replace("-", "_"))
    best, likeness = "", 0.4999  # at least half; of several that are equally near, the first
    for one in known:
        matcher.set_seq1(one)
        if matcher.quick_ratio() > likeness and matcher.ratio() > likeness:
            best, likeness = one, matcher.ratio()
    return f" Did you mean `{known[best]}`?" if best else ""


def single_kind(hint: Any) -> Any:
    """The type of one value of an option or argument: `int` of `list[int] | None`."""
    kind = next(iter(_kinds(hint)))
    return typing.get_args(kind)[0] if _is_list(kind) else kind


def is_of(hint: Any, value: Any, *, texts: bool = False) -> bool:
    """Whether a value is of a type. Of a type that is neither in `EXPECTED`, nor a list or a choice, all values are.

    Args:
        hint: the type.
        value: the value.
        texts: whether a text that says a number, yes or no will do, as in YAML, where `1e-3` is a text.
    """
    if value is None:
        return type(None) in typing.get_args(hint)
    return any(_is_of(kind, value, texts) for kind in _kinds(hint))


def _is_of(kind: Any, value: Any, texts: bool) -> bool:
    if _is_list(kind):
        item = typing.get_args(kind)[0]
        several = isinstance(value, Iterable) and not isinstance(value, str)
        return several and all(is_of(item, one, texts=texts) for one in value)
    if typing.get_origin(kind) is typing.Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    if texts and isinstance(value, str) and kind in (bool, int, float):
        return value.lower() in YES_OR_NO if kind is bool else _says(kind, value)
    if kind not in EXPECTED:
        return True
    return isinstance(value, EXPECTED[kind][1]) and (kind is bool or not isinstance(value, bool))


def _says(kind: Any, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def expected(hint: Any, received: Any) -> str:
    """What a value must be, what was received, and the nearest value that is right: the end of an error."""
    kinds = _kinds(hint)
    shown = f"{' '.join(repr(received).split()):.100}"
    return f"{' or '.join(map(_what, kinds))}. Received: {shown}.{_meant(kinds[0], received)}"


def _what(kind: Any) -> str:
    if _is_list(kind):
        return f"a list of values, each {_what(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    return EXPECTED[kind][0] if kind in EXPECTED else "of another type"


def _meant(kind: Any, received: Any) -> str:
    """The nearest value of a type: ` Did you mean `0.1`?` for `10%` and `0,1`."""
    if _is_list(kind):
        is_one = not isinstance(received, Iterable) and is_of(typing.get_args(kind)[0], received)
        return f" Did you mean `[{received}]`?" if is_one else ""
    text = str(received)
    if typing.get_origin(kind) is typing.Literal:
        return nearest(text, map(str, typing.get_args(kind)))
    number = NUMBER.match(text.replace(",", ".")) if kind in (int, float) else None
    if not number:
        return ""
    meant = number[0]
    if text[number.end() :].strip() == "%":
        meant = f"{float(meant) / 100:g}"
    elif kind is int and isinstance(received, float) and received.is_integer():
        meant = str(int(received))
    fits = kind is float or meant.lstrip("+-").isdigit()
    return f" Did you mean `{meant}`?" if fits and meant != repr(received) else ""


def _kinds(hint: Any) -> list[Any]:
    """The types that a value may have beside None: a path for `os.PathLike`."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if is_union else (hint,)
    return [
        Path if typing.get_origin(kind) is os.PathLike else kind for kind in kinds if kind is not type(None)
    ]


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) in (list, Sequence)


def printable(text: str) -> str:
    r"""The text, with each character that a terminal, a page or a figure can't show written as an escape: `\x1b`.

    Class and file names come from others. A control character in one can move the terminal's cursor, colour all that
    follows or end a line of a table, and is not allowed in an SVG file.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter.encode("unicode_escape").decode() if _hidden(letter) else letter for letter in text)


def _hidden(letter: str) -> bool:
    if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in TURNING:
        return True
    return ord(letter) & 0xFFFE == 0xFFFE  # ...FFFE and ...FFFF are never characters


def next_steps(*steps: tuple[str, str]) -> str:
    """What a command ends with: commands that may follow, each with what it gives."""
    return "\n".join(["What next:", *(f"  {command}\n      {what}" for command, what in steps)])


def about(seconds: float) -> str:
    """A length of time in round words: "40 seconds", "11 minutes", "5.5 hours", "3.1 days"."""
    if seconds < 95:
        return f"{max(10.0, round(seconds, -1)):.0f} seconds"
    if seconds < 95 * 60:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


def listed(names: Iterable[str], most: int = 20) -> str:
    """The first `most` names in one line, and how many more there are."""
    names = [printable(name) for name in names]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def csv_text(text: str) -> str:
    """A text as a cell of a CSV file, so that no spreadsheet runs it as a formula.

    Spreadsheets take a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula, which can start
    programs: such a text gets an apostrophe in front (OWASP, "CSV Injection").
    """
    return f"'{text}" if text[:1] in tuple("=+-@\t\r\n") else text
