"""How far a build is, on standard error."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(title: str, total: int | None = None) -> "tqdm":
    from tqdm import tqdm

    # Into a log file go few lines, onto a terminal two a second.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=title, unit=" pictures", mininterval=interval, file=sys.stderr)
