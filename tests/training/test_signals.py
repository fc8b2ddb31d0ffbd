"""SIGINT and SIGTERM wait for the step that is being done, and for nothing else."""

import os
import signal

import pytest

from mcar_tf.training.signals import stop_between_steps
from pipelines.command import Terminated


@pytest.mark.parametrize(
    ("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_waits_for_the_step(signum, error):
    with stop_between_steps() as stopping, stopping.waiting():
        os.kill(os.getpid(), signum)
        assert stopping.requested
        with pytest.raises(error):
            stopping.leave()


@pytest.mark.parametrize(
    ("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_where_there_is_no_step_a_signal_ends_at_once(signum, error):
    with stop_between_steps() as stopping:
        with stopping.waiting():
            pass
        with pytest.raises(error):
            os.kill(os.getpid(), signum)


def test_a_second_signal_does_not_wait():
    with stop_between_steps() as stopping, stopping.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_before_are_put_back():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with stop_between_steps():
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
