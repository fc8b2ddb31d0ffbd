"""Several replicas train the model that one would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "on_replicas.py"


def train_on(*arguments: dict) -> list[dict]:
    """Results of `on_replicas.train`, one for each set of its arguments, from one process."""
    words = [json.dumps(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words],
        cwd=SCRIPT.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_same_training(a: dict, b: dict) -> None:
    np.testing.assert_allclose(a["losses"], b["losses"], atol=1e-5)
    np.testing.assert_allclose(a["weights"], b["weights"], atol=1e-5)
    assert a["epoch_loss"] == pytest.approx(b["epoch_loss"], abs=1e-5)


def test_replicas_train_what_one_device_trains():
    # Clipped in every step (a norm of about 1 is usual here) and with BatchNorm synchronized, which a trained
    # BatchNorm needs to see the same batch.
    everything = {"frozen": False, "synchronized": True, "global_clipnorm": 0.1}
    one, two, one_whole, two_whole = train_on(
        {"replicas": 1, "frozen": True},
        {"replicas": 2, "frozen": True},
        {"replicas": 1, **everything},
        {"replicas": 2, **everything},
    )
    assert one["losses"][-1] < one["losses"][0]
    assert_same_training(one, two)

    assert_same_training(one_whole, two_whole)
    assert two["most_between_replicas"] == two_whole["most_between_replicas"] == 0


@pytest.mark.slow
def test_four_replicas_with_their_own_batch_norm_stay_the_same():
    one, four, own = train_on(
        {"replicas": 1, "frozen": True},
        {"replicas": 4, "frozen": True},
        {"replicas": 4, "frozen": False},
    )
    assert_same_training(one, four)
    assert own["most_between_replicas"] == 0
