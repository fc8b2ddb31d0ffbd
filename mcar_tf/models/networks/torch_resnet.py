"""ResNets as in torchvision and the paper: stride in the 3x3 convolution, no biases, symmetric padding."""

from collections.abc import Iterator, Sequence

import keras

from mcar_tf.models.networks.conv_norm import conv_norm
from mcar_tf.models.networks.stages import RESNET50, RESNET101
from mcar_tf.models.weights.names import NAMINGS

EPSILON = 1e-5


def build_torch_resnet50() -> keras.Model:
    """(B, H, W, 3), scaled, -> (B, H / 32, W / 32, 2048)."""
    return build_torch_resnet(RESNET50, NAMINGS["torch_resnet50"][0].pairs)


def build_torch_resnet101() -> keras.Model:
    """(B, H, W, 3), scaled, -> (B, H / 32, W / 32, 2048)."""
    return build_torch_resnet(RESNET101, NAMINGS["torch_resnet101"][0].pairs)


def build_torch_resnet(depths: Sequence[int], names: Sequence[tuple[str, str]]) -> keras.Model:
    """A ResNet of bottlenecks.

    Args:
        depths: number of bottlenecks in each of the four stages.
        names: names of each convolution and its BatchNorm, in order.
    """
    pairs = iter(names)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.ReLU()(_convolve(inputs, pairs, 64, 7, 2))
    # torch pads with minus infinity; zeros do here, because after a ReLU neither is ever above the maximum.
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x))
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            x = _bottleneck(
                x, pairs, 64 * 2**stage, stride=2 if stage and block == 0 else 1, first=block == 0
            )
    return keras.Model(inputs, x)


def _bottleneck(
    x: keras.KerasTensor, pairs: Iterator[tuple[str, str]], width: int, stride: int, first: bool
) -> keras.KerasTensor:
    """1x1 to `width` channels, 3x3 with the stride, 1x1 to four times as many, and the shortcut."""
    y = keras.layers.ReLU()(_convolve(x, pairs, width, 1))
    y = keras.layers.ReLU()(_convolve(y, pairs, width, 3, stride))
    y = _convolve(y, pairs, 4 * width, 1)
    shortcut = _convolve(x, pairs, 4 * width, 1, stride) if first else x
    return keras.layers.ReLU()(keras.layers.Add()([y, shortcut]))


def _convolve(
    x: keras.KerasTensor, pairs: Iterator[tuple[str, str]], filters: int, kernel: int, stride: int = 1
) -> keras.KerasTensor:
    return conv_norm(x, next(pairs), filters, kernel, stride, padding="symmetric", epsilon=EPSILON)
