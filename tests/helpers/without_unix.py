"""Runs tests where `fcntl`, `resource` and `os.fork` are absent, as on Windows: `without_unix.py PYTEST_WORDS`."""

import os
import sys

sys.modules["fcntl"] = None  # type: ignore[assignment]  # an import of it raises ImportError
sys.modules["resource"] = None  # type: ignore[assignment]
for name in ("fork", "forkpty", "register_at_fork"):
    delattr(os, name)

import pytest  # noqa: E402

sys.exit(pytest.main(["-W", "ignore:only soft file lock is available:UserWarning", *sys.argv[1:]]))
