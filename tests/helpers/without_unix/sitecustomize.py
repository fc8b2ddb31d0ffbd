"""With this folder on PYTHONPATH, Python has no `fcntl`, no `resource` and no `os.fork`, as on Windows."""

import os
import sys

sys.modules["fcntl"] = None  # type: ignore[assignment]  # an import of it raises ImportError
sys.modules["resource"] = None  # type: ignore[assignment]
for name in ("fork", "forkpty", "register_at_fork"):
    if hasattr(os, name):
        delattr(os, name)
