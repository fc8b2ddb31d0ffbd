"""Write half of an export, say so, and wait to be killed.

    python half_an_export.py FOLDER [amid-the-replacement]

With the second word the new export is whole and the old one put aside, but the new one has not got its place yet.
"""

import sys
import time
from pathlib import Path

from mcar_tf.exporting.folder import new_export_folder

folder = Path(sys.argv[1])


def wait(*_: object) -> None:
    print("half", flush=True)
    time.sleep(100)


if "amid-the-replacement" in sys.argv:
    rename = Path.rename

    def rename_or_wait(path: Path, target: Path) -> Path:
        return wait() if target == folder else rename(path, target)  # type: ignore[return-value]

    Path.rename = rename_or_wait  # type: ignore[assignment, method-assign]

with new_export_folder(folder, overwrite=True) as partial:
    (partial / "parity.json").write_text("{}")
    if "amid-the-replacement" not in sys.argv:
        wait()
