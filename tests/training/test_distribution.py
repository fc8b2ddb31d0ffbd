"""Several replicas train the model that one would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "helpers" / "on_replicas.py"


def train_on(*arguments: dict) -> list[dict]:
    """Results of `on_replicas.train`, one for each set of its arguments, from one process."""
    words = [json.dumps(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, SCRIPT, *words],
        cwd=SCRIPT.parent.parent.parent,
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


@pytest.fixture(scope="module")
def trainings() -> list[dict]:
    # Clipped in every step (a norm of about 1 is usual here) and with BatchNorm synchronized, which a trained
    # BatchNorm needs to see the same batch.
    everything = {
        "frozen": False,
        "synchronized": True,
        "global_clipnorm": 0.1,
        "options": {"batch_norm": "per_stream", "box_jitter": 0.2, "pooling": "csra"},
    }
    # Of the last batch of 13 images one replica gets four and the other one; of 12, four and none.
    frozen = {"frozen": True, "evaluated": [13, 12]}
    # A batch of 8 is two of 4, each of which a device of its own sees here.
    step = {"frozen": False, "steps": 1, "options": {"batch_norm": "per_stream"}}
    recomputed = {"frozen": False, "synchronized": True, "steps": 3}
    return train_on(
        {"replicas": 1, **frozen},
        {"replicas": 2, **frozen},
        {"replicas": 1, **everything},
        {"replicas": 2, **everything},
        {"replicas": 1, "batch": 4, **step},
        {"replicas": 1, "batch": 4, "skip": 1, **step},
        {"replicas": 2, "batch": 8, **step},
        {"replicas": 2, "low_memory": False, **recomputed},
        {"replicas": 2, "low_memory": True, **recomputed},
    )


def test_replicas_train_what_one_device_trains(trainings):
    one, two, one_whole, two_whole = trainings[:4]
    assert one["losses"][-1] < one["losses"][0]
    assert_same_training(one, two)

    assert_same_training(one_whole, two_whole)
    assert two["most_between_replicas"] == two_whole["most_between_replicas"] == 0


def test_replicas_evaluate_to_the_loss_over_all_images(trainings):
    for one, two in zip(*(training["evaluated"] for training in trainings[:2]), strict=True):
        assert two == pytest.approx(one, abs=1e-5)


def test_after_a_step_the_moving_statistics_are_the_mean_of_each_replicas_own(trainings):
    # They depend on the first weights and the images alone.
    first, second, both = trainings[4:7]
    own = np.array([first["statistics"], second["statistics"]])
    assert np.abs(own[0] - own[1]).max() > 0.01  # or any of the two would do
    np.testing.assert_allclose(both["statistics"], own.mean(0), atol=1e-6)
    assert both["most_between_replicas"] == 0


def test_low_memory_and_synchronized_batch_norm_keep_the_same_statistics(trainings):
    # Replicas take turns where BatchNorm waits for the others: what one of them computes again must not touch what
    # another one updates.
    usual, low_memory = trainings[7:]
    np.testing.assert_allclose(low_memory["statistics"], usual["statistics"], atol=1e-5)
    assert_same_training(usual, low_memory)
    assert low_memory["most_between_replicas"] == 0


@pytest.mark.slow
def test_four_replicas_with_their_own_batch_norm_stay_the_same():
    one, four, own = train_on(
        {"replicas": 1, "frozen": True},
        {"replicas": 4, "frozen": True},
        {"replicas": 4, "frozen": False},
    )
    assert_same_training(one, four)
    assert own["most_between_replicas"] == 0
