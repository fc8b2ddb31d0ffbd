"""Asks a process of its own which slow packages modules load."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "what_loads.py"


def loads(*words: str) -> list[str]:
    """The slow packages that importing modules loads; or `COMMAND --help`, which must end well."""
    done = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, check=True)
    assert ("usage: " in done.stdout) == (words[-1] == "--help")
    return done.stdout.splitlines()[-1].split()[1:]
