"""Measures for how long training waits for pictures: a dataset in, the same dataset out, with a clock in it."""

import tensorflow as tf


class WaitClock:
    """Adds up the seconds between a step's asking for its batch and getting it.

    The first batch counts too: the shuffle buffer has to be filled for it.

    Attributes:
        share: share of the last epoch's time that was spent waiting, in [0, 1].
        share_of_all: the same for all epochs so far.
    """

    def __init__(self) -> None:
        with tf.device("CPU:0"):
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.share = self.share_of_all = 0.0
        self._waited_before = self._trained = 0.0

    def watch(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset, with the clock running whenever its next batch is asked for."""
        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def note(since: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            self.waited.assign_add(tf.timestamp() - since)
            return batch

        # Of a zip's datasets, the first one is asked first. tf.data would add a buffer behind the last map, and the
        # clock would then measure how long that buffer waits, not training.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip((asked, dataset)).map(note).with_options(options)

    def close_epoch(self, seconds: float) -> None:
        """Take the time that an epoch's steps took, and update the shares."""
        waited = float(self.waited.numpy())
        self._trained += seconds
        self.share = (waited - self._waited_before) / seconds if seconds > 0 else 0.0
        self.share_of_all = waited / self._trained if self._trained > 0 else 0.0
        self._waited_before = waited
