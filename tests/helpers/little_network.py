"""A backbone of a few convolutions, for tests of what lies around it: a fraction of the smallest real one's graph."""

from collections.abc import Sequence

import keras


def little_network(channels: Sequence[int] = (8, 16)) -> keras.Model:
    """(B, H, W, 3) in [0, 255] -> (B, H / 4, W / 4, the last of `channels`), with weights from Keras' seed.

    The first two convolutions are of 3 x 3 and stride 2, all others of 1 x 1.
    """
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for place, count in enumerate(channels):
        side, stride = (3, 2) if place < 2 else (1, 1)
        x = keras.layers.Conv2D(count, side, stride, "same", use_bias=False, kernel_initializer="he_normal")(
            x
        )
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x)
