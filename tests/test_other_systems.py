"""The quick tests where `fcntl`, `resource` and `os.fork` are absent: what Windows lacks is not needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What opens, locks and signals, and a build.
FEW = (
    *("pipelines/test_files.py", "runs/test_opening.py", "training/test_signals.py"),
    "pipelines/building/test_sets.py::test_a_build_that_was_stopped_goes_on_and_ends_the_same",
)


@pytest.mark.parametrize(
    "tests", [FEW, pytest.param(["."], marks=pytest.mark.slow)], ids=["few", "all quick"]
)
def test_nothing_that_windows_lacks_is_needed(tests):
    hidden = [str(TESTS / "helpers" / "without_unix"), str(TESTS.parent)]
    words = [str(TESTS / test) for test in tests] + ["-q", "-p", "no:cacheprovider", f"--ignore={__file__}"]
    words += [
        "-W",
        "ignore:only soft file lock is available:UserWarning",
    ]  # as filelock says where Unix has no fcntl
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(hidden)},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout


def test_they_are_absent():
    code = "import os\ntry:\n import fcntl\nexcept ImportError:\n print(hasattr(os, 'fork'))"
    env = os.environ | {"PYTHONPATH": str(TESTS / "helpers" / "without_unix")}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
