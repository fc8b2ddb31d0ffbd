"""The networks that look: a name in, a Keras model from an image in [0, 255] to an activation map out.

A new backbone is one line in `BACKBONES`.
"""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path

import keras
from keras import ops

from mcar_tf.models.batch_norm import fuse_batch_norm


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How to build one network and what it takes.

    Attributes:
        build: function of (weights, width) -> Keras model from (B, H, W, 3), scaled, to (B, h, w, d).
        scale_input: from RGB in [0, 255] to what its ImageNet weights were trained on.
        min_size: smallest side of an image in px.
        widths: whether its number of channels can be scaled.
    """

    build: Callable[[str | None, float], keras.Model]
    scale_input: Callable[[keras.KerasTensor], keras.KerasTensor]
    min_size: int = 32
    widths: bool = False


def to_unit_range(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> [-1, 1], as MobileNet-v2 takes it."""
    return images / 127.5 - 1.0


def to_caffe_bgr(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> BGR less ImageNet's means, as the ResNets of `keras.applications` take it."""
    return ops.flip(images, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], images.dtype)


def _application(name: str) -> Callable[[str | None, float], keras.Model]:
    def build(weights: str | None, width: float) -> keras.Model:
        make = getattr(keras.applications, name)
        scaled = {"alpha": width} if name == "MobileNetV2" else {}
        return make(include_top=False, weights=weights, input_shape=(None, None, 3), **scaled)

    return build


def _tiny_resnet(weights: str | None, width: float) -> keras.Model:
    """Four residual stages, stride 16: learns small sets from scratch in minutes on a CPU."""
    if weights is not None:
        raise ValueError(f"`weights` of backbone 'tiny_resnet' must be None or a file. Received: {weights!r}")

    def convolution(x: keras.KerasTensor, filters: int, kernel: int, stride: int) -> keras.KerasTensor:
        x = keras.layers.Conv2D(
            filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((None, None, 3))
    x = keras.layers.ReLU()(convolution(inputs, round(16 * width), 3, 2))
    for filters in (32, 64, 128):
        # Every other cell, then stride 1: the same numbers as a 1x1 convolution of stride 2, whose gradient by oneDNN
        # (TensorFlow 2.21 on CPUs) writes past its memory where channels are fewer than 16.
        shortcut = convolution(keras.layers.MaxPooling2D(1, 2)(x), round(filters * width), 1, 1)
        x = keras.layers.ReLU()(convolution(x, round(filters * width), 3, 2))
        x = convolution(x, round(filters * width), 3, 1)
        x = keras.layers.ReLU()(x + shortcut)
    return keras.Model(inputs, x)


BACKBONES = {
    "mobilenet_v2": Backbone(_application("MobileNetV2"), to_unit_range, widths=True),
    "resnet50": Backbone(_application("ResNet50"), to_caffe_bgr),
    "resnet101": Backbone(_application("ResNet101"), to_caffe_bgr),
    "tiny_resnet": Backbone(_tiny_resnet, to_unit_range, min_size=16, widths=True),
}

# Moving averages of BatchNorm follow each batch as torch's do (its momentum 0.1 is our 0.9). What
# `keras.applications` sets, 0.999 and 0.99, would leave a short fine-tune with ImageNet's statistics.
BATCH_NORM_MOMENTUM = 0.9


def check_backbone(name: str, *, width: float = 1.0, image_size: int | None = None) -> None:
    """Refuse what no backbone can be built from, before anything is built.

    Raises:
        ValueError: unknown name, a width where it can't be scaled, an image smaller than the backbone takes.
    """
    if name not in BACKBONES:
        close = difflib.get_close_matches(name.lower().replace("-", "_"), BACKBONES, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`backbone` must be one of {', '.join(BACKBONES)}.{hint} Received: {name!r}")
    entry = BACKBONES[name]
    if width <= 0 or (width != 1.0 and not entry.widths):
        allowed = "positive" if entry.widths else f"1 for {name}, whose channels are fixed"
        raise ValueError(f"`width` must be {allowed}. Received: {width}")
    if image_size is not None and image_size < entry.min_size:
        raise ValueError(
            f"`image_size` must be at least {entry.min_size} px for {name}. Received: {image_size}"
        )


def build_backbone(name: str, *, weights: str | Path | None = "imagenet", width: float = 1.0) -> keras.Model:
    """A backbone that takes RGB images in [0, 255] of any size and gives its last activation map.

    Args:
        name: a key of `BACKBONES`.
        weights: "imagenet" (downloaded by `keras.applications`), the path of a file saved by `save_weights` of the
            same `keras.applications` model without its top, or None for random ones.
        width: factor on the number of channels.

    Returns:
        Keras model: (B, H, W, 3) in [0, 255] -> (B, h, w, d), named "backbone".

    Raises:
        ValueError: see `check_backbone`; weights of another architecture.
        FileNotFoundError: no such file of weights; ImageNet's could not be downloaded.
    """
    check_backbone(name, width=width)
    entry = BACKBONES[name]
    if weights == "imagenet":
        try:
            network = entry.build("imagenet", width)
        except ValueError:
            raise
        except Exception as error:
            raise FileNotFoundError(
                f"ImageNet weights of {name} could not be downloaded ({str(error)[:120]}). Pass the path of a file"
                " with them as `weights` (it is what `keras.applications` saves without the top),"
                " or none to train from scratch."
            ) from error
    else:
        network = entry.build(None, width)
        if weights is not None:
            _load_weights(network, Path(weights), name)
    network = fuse_batch_norm(network, BATCH_NORM_MOMENTUM)
    images = keras.Input((None, None, 3))
    return keras.Model(images, network(entry.scale_input(images)), name="backbone")


def _load_weights(network: keras.Model, path: Path, name: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"`weights` must be 'imagenet', none or an existing file. Received: {path}")
    try:
        network.load_weights(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold weights of {name} without its top: {reason}") from error
