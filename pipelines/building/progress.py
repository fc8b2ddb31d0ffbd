"""Show the progress of a build on standard error."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(title: str, total: int | None = None) -> "tqdm":
    from tqdm import tqdm

    # A terminal is updated twice a second; a log file gets few lines.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=title, unit=" pictures", mininterval=interval, file=sys.stderr)
