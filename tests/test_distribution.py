"""Several replicas train the model that one would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_multi_worker import free_ports, tf_config

SCRIPT = Path(__file__).parent / "on_replicas.py"


def train_on(*arguments: dict) -> list[dict]:
    """Results of `on_replicas.train`, one for each set of its arguments, from one process."""
    return result_of(start(*arguments))


def start(*arguments: dict, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(json.dumps, arguments)],
        cwd=SCRIPT.parent.parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen) -> list[dict]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return json.loads(output.splitlines()[-1])


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
    one, four, low_memory, own, one_step, one_step_of_one = train_on(
        {"replicas": 1, "frozen": True},
        {"replicas": 4, "frozen": True},
        {"replicas": 4, "frozen": True, "low_memory": True},
        {"replicas": 4, "frozen": False},
        {"replicas": 4, "frozen": False, "steps": 1},
        {"replicas": 1, "frozen": False, "steps": 1},
    )
    assert_same_training(one, four)
    assert_same_training(one, low_memory)
    assert own["most_between_replicas"] == 0
    # The first layer's inputs are no replica's own affair: there the mean of the shares' means is that of the batch.
    np.testing.assert_allclose(one_step["first_moving_mean"], one_step_of_one["first_moving_mean"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_train_what_one_device_trains(workers):
    frozen = {"replicas": 1, "frozen": True}
    ports = free_ports(workers)
    processes = [start(frozen, TF_CONFIG=tf_config(i, *ports)) for i in range(workers)]
    [one] = train_on(frozen)
    for process in processes:
        assert_same_training(one, result_of(process)[0])
