import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(
    "glibc" not in os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") else True, reason="needs glibc"
)


def pages_of_20_arrays(**environment: str) -> tuple[str, int]:
    tuned = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    said = subprocess.run(
        [sys.executable, ROOT / "tests" / "helpers" / "count_page_faults.py"],
        env=tuned | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return said[0], int(said[1])


def test_a_freed_array_of_96_mib_is_taken_again_without_the_kernel():
    taken, pages = pages_of_20_arrays()
    assert taken == "True"
    assert pages < 100


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_environment_tunes_stays_as_it_is(name):
    value = "glibc.malloc.arena_max=8" if name == "GLIBC_TUNABLES" else "8"
    taken, pages = pages_of_20_arrays(**{name: value})
    assert taken == "False"
    assert pages > 500  # so the test above can fail: 20 arrays have 960 pages of 2 MiB, or 491,520 of 4 KiB


def test_where_the_c_library_is_another_nothing_happens(monkeypatch):
    from pipelines import allocator

    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
