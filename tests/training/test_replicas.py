"""Replicas count every picture once and give the numbers of one, also of a last batch that is not full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Logical CPUs can only be made before TensorFlow starts: hence one process of its own for all of this.
PROGRAM = Path(__file__).parent.parent / "helpers" / "evaluate_on_replicas.py"


@pytest.mark.parametrize("replicas", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_replicas_give_the_numbers_of_one(replicas):
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, PROGRAM, str(replicas)],
        capture_output=True,
        text=True,
        check=False,
        # The pictures are those of tests/evaluating.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests / "evaluating")))},
    )
    assert done.stdout == "all of it\n", done.stderr[-2000:]
