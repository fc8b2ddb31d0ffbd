"""How deep and wide the networks of this folder are, stage by stage. Loads no TensorFlow."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width, one after the other.

    Attributes:
        expansion: channels inside a block, as a multiple of its input channels.
        channels: output channels of each block.
        blocks: number of blocks.
        stride: stride of the first block; the others have 1.
        kernel: side of the depthwise convolution.
    """

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3


# Blocks per stage. He et al., "Deep residual learning for image recognition", CVPR 2016, table 1.
RESNET50 = (3, 4, 6, 3)
RESNET101 = (3, 4, 23, 3)

# Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2.
MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)

# EfficientNet-B0's (Tan & Le, "EfficientNet", ICML 2019, table 1), which Lite0 has without squeeze-and-excitation.
EFFICIENTNET_LITE0 = (
    Stage(1, 16, 1, 1, kernel=3),
    Stage(6, 24, 2, 2, kernel=3),
    Stage(6, 40, 2, 2, kernel=5),
    Stage(6, 80, 3, 2, kernel=3),
    Stage(6, 112, 3, 1, kernel=5),
    Stage(6, 192, 4, 2, kernel=5),
    Stage(6, 320, 1, 1, kernel=3),
)
