"""A chain of inverted residuals, as in MobileNets, from scaled images to the last activation map."""

from collections.abc import Iterator, Sequence

import keras

from mcar_tf.models.networks.conv_norm import Padding, conv_norm
from mcar_tf.models.networks.stages import Stage

STEM, LAST = 32, 1280  # output channels of the first and the last convolution


def build_inverted_residuals(
    stages: Sequence[Stage], names: Sequence[tuple[str, str]], *, padding: Padding, epsilon: float
) -> keras.Model:
    """(B, H, W, 3) -> (B, H / 32, W / 32, 1280).

    Args:
        stages: the stages of blocks.
        names: names of each convolution and its BatchNorm, in order.
        padding: see `conv_norm`.
        epsilon: epsilon of BatchNorm.
    """
    pairs = iter(names)

    def convolve(
        x: keras.KerasTensor, filters: int | None, kernel: int, stride: int = 1, activate: bool = True
    ) -> keras.KerasTensor:
        x = conv_norm(x, next(pairs), filters, kernel, stride, padding=padding, epsilon=epsilon)
        return keras.layers.ReLU(6.0)(x) if activate else x

    inputs = keras.Input((None, None, 3))
    x = convolve(inputs, STEM, 3, 2)
    for stage, stride in _blocks(stages):
        entered = x
        if stage.expansion > 1:
            x = convolve(x, stage.expansion * entered.shape[-1], 1)
        x = convolve(x, None, stage.kernel, stride)
        x = convolve(x, stage.channels, 1, activate=False)
        if stride == 1 and entered.shape[-1] == stage.channels:
            x = keras.layers.Add()([entered, x])
    return keras.Model(inputs, convolve(x, LAST, 1))


def _blocks(stages: Sequence[Stage]) -> Iterator[tuple[Stage, int]]:
    """Each block's stage and stride."""
    for stage in stages:
        for block in range(stage.blocks):
            yield stage, stage.stride if block == 0 else 1
