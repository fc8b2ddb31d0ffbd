"""How values are written for people: options as they are typed, percentages, the name nearest to a wrong one."""

import difflib
import math
from collections.abc import Iterable

UNKNOWN = "-"


def spell(name: str) -> str:
    """An option as users type it, without its dashes: `image_size` -> `image-size`."""
    return name.replace("_", "-")


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.8324 -> 83.2. A dash for what is unknown, None or NaN."""
    if fraction is None or math.isnan(fraction):
        return UNKNOWN
    return f"{100 * fraction:.{digits}f}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """` Did you mean X?`, X the valid name nearest to `name`, or nothing: the end of an error's sentence."""
    known = {one.lower().replace("-", "_"): one for one in valid}
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    return f" Did you mean `{known[matches[0]]}`?" if matches else ""
