"""Write values for people: options, percentages, the nearest valid name, and names that come from others."""

import difflib
import math
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

UNKNOWN = "-"
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
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending * (count != 1)}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: ` Did you mean X?`, with the valid name nearest to `name`; or nothing."""
    known = {one.lower().replace("-", "_"): one for one in valid}
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    return f" Did you mean `{known[matches[0]]}`?" if matches else ""


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
