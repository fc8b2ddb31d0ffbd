"""A convolution with its BatchNorm, padded as in PyTorch's networks or as in TensorFlow's."""

from typing import Literal

import keras

Padding = Literal["symmetric", "same"]


def conv_norm(
    x: keras.KerasTensor,
    names: tuple[str, str],
    filters: int | None,
    kernel: int,
    stride: int = 1,
    *,
    padding: Padding,
    epsilon: float,
) -> keras.KerasTensor:
    """Convolve without a bias, then normalize.

    Args:
        x: (B, h, w, c).
        names: names of the two layers.
        filters: number of output channels; None: a depthwise convolution.
        kernel: side of the square kernel, odd.
        stride: stride of the convolution.
        padding: "symmetric": kernel // 2 zeros on each side, as torch's `padding=kernel // 2`; "same": TensorFlow's,
            which for a stride of 2 and an even side has one zero less at the top and left.
        epsilon: epsilon of BatchNorm.
    """
    name, norm = names
    if padding == "symmetric" and stride > 1 and kernel > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padded = "valid"
    else:
        padded = "same"  # for a stride of 1 both are symmetric
    common = {"strides": stride, "padding": padded, "use_bias": False, "name": name}
    if filters is None:
        x = keras.layers.DepthwiseConv2D(kernel, depthwise_initializer="he_normal", **common)(x)
    else:
        x = keras.layers.Conv2D(filters, kernel, kernel_initializer="he_normal", **common)(x)
    return keras.layers.BatchNormalization(epsilon=epsilon, name=norm)(x)
