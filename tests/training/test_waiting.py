"""How long training waits for pictures is measured, and the pictures stay as they are."""

import time

import tensorflow as tf

from mcar_tf.training.waiting import WaitClock


def pictures(seconds_each, count=4):
    def slowly():
        for k in range(count):
            time.sleep(seconds_each)
            yield k

    return tf.data.Dataset.from_generator(slowly, output_signature=tf.TensorSpec([], tf.int32))


def test_batches_and_their_order_stay():
    assert list(WaitClock().watch(pictures(0.0)).as_numpy_iterator()) == [0, 1, 2, 3]


def test_a_slow_pipeline_is_waited_for():
    clock = WaitClock()
    assert len(list(clock.watch(pictures(0.1)))) == 4
    assert 0.4 <= clock.waited.numpy() < 4.0
    clock.close_epoch(seconds=8.0)
    assert 0.05 <= clock.share < 0.5
    assert clock.share_of_all == clock.share


def test_a_slow_model_does_not_wait():
    clock = WaitClock()
    batches = clock.watch(pictures(0.0).prefetch(4))
    first = None
    for _ in batches:
        first = clock.waited.numpy() if first is None else first  # the first batch has to be made
        time.sleep(0.3)
    assert clock.waited.numpy() - first < 0.6  # 3 batches that were ready, in more than 0.9 s


def test_each_epoch_has_a_share_of_its_own():
    clock = WaitClock()
    clock.waited.assign(3.0)
    clock.close_epoch(seconds=4.0)
    clock.waited.assign(3.5)
    clock.close_epoch(seconds=1.0)
    assert (clock.share, clock.share_of_all) == (0.5, 0.7)
    clock.close_epoch(seconds=0.0)  # a run that was resumed behind the last step
    assert clock.share == 0.0
