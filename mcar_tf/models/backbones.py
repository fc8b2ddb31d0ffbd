"""Build a backbone, from its name or from a network: a Keras model from an image in [0, 255] to an activation map.

`backbone_table.py` lists the backbones.
"""

from collections.abc import Callable
from pathlib import Path

import keras
from keras import ops

from mcar_tf.models.backbone_table import BACKBONES, Backbone, check_backbone, check_sizes
from mcar_tf.models.batch_norm import LOCAL_STREAM, fuse_batch_norm
from mcar_tf.models.keras_internals import pass_on
from mcar_tf.models.networks.depthwise import use_depthwise_convolutions
from mcar_tf.models.networks.efficientnet_lite import build_efficientnet_lite0
from mcar_tf.models.networks.torch_mobilenet_v2 import build_torch_mobilenet_v2
from mcar_tf.models.networks.torch_resnet import build_torch_resnet50, build_torch_resnet101
from mcar_tf.models.weights.fitting import fill_network, looks_like
from mcar_tf.models.weights.imagenet import EXTRA, find_packaged_weights
from mcar_tf.models.weights.names import NAMINGS
from mcar_tf.models.weights.state_dict import is_state_dict, read_state_dict

# BatchNorm's moving averages follow each batch as fast as torch's do (its momentum 0.1 is our 0.9). With the 0.999
# and 0.99 of `keras.applications`, a short fine-tune would end with ImageNet's statistics.
BATCH_NORM_MOMENTUM = 0.9


def as_it_is(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] unchanged, for networks that scale it themselves."""
    return images


def to_unit_range(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> [-1, 1], as MobileNet-v2 takes it."""
    return images / 127.5 - 1.0


def to_caffe_bgr(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> BGR less ImageNet's means, as the ResNets of `keras.applications` take it."""
    return ops.flip(images, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], images.dtype)


def to_torchvision(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> [0, 1], less ImageNet's mean, divided by its standard deviation, as in torchvision."""
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    fractions = images / 255.0 - ops.convert_to_tensor(mean, images.dtype)
    return fractions / ops.convert_to_tensor(deviation, images.dtype)


def to_lite(images: keras.KerasTensor) -> keras.KerasTensor:
    """RGB in [0, 255] -> about [-1, 1], as the EfficientNet-Lites take it."""
    return (images - 127.0) / 128.0


def build_tiny_resnet(width: float = 1.0) -> keras.Model:
    """Four residual stages, stride 16: learns small sets from scratch in minutes on a CPU."""

    def convolution(x: keras.KerasTensor, filters: int, kernel: int, stride: int) -> keras.KerasTensor:
        x = keras.layers.Conv2D(
            filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input((None, None, 3))
    x = keras.layers.ReLU()(convolution(inputs, round(16 * width), 3, 2))
    for filters in (32, 64, 128):
        # Every other cell, then stride 1. This equals a 1x1 convolution of stride 2, whose gradient in oneDNN
        # (TensorFlow 2.21 on CPUs) writes past its memory if there are fewer than 16 channels.
        shortcut = convolution(keras.layers.MaxPooling2D(1, 2)(x), round(filters * width), 1, 1)
        x = keras.layers.ReLU()(convolution(x, round(filters * width), 3, 2))
        x = convolution(x, round(filters * width), 3, 1)
        x = keras.layers.ReLU()(x + shortcut)
    return keras.Model(inputs, x)


# What the names in the table stand for; all other networks are those of `keras.applications`.
SCALINGS = {
    "none": as_it_is,
    "unit_range": to_unit_range,
    "caffe_bgr": to_caffe_bgr,
    "torchvision": to_torchvision,
    "lite": to_lite,
}
OWN_NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "TinyResNet": build_tiny_resnet,
    "TorchMobileNetV2": build_torch_mobilenet_v2,
    "TorchResNet50": build_torch_resnet50,
    "TorchResNet101": build_torch_resnet101,
    "EfficientNetLite0": build_efficientnet_lite0,
}


def build_backbone(
    name: str | keras.Model,
    *,
    weights: str | Path | None = "imagenet",
    width: float = 1.0,
    sync_batch_norm: bool = False,
    batch_norm: str = "shared",
) -> keras.Model:
    """A backbone that takes RGB images in [0, 255] of any size and gives its last activation map.

    Args:
        name: a key of `BACKBONES`; or a functional or sequential model of the user's own, which is copied with its
            weights: `weights` and `width` are then not used. Its BatchNorm layers become `FusedBatchNormalization`.
        weights: "imagenet" (downloaded by `keras.applications`, or from a package), a file, or None for random ones.
            The file is one written by `save_weights` of the same `keras.applications` model without its top or, for
            the backbones in `NAMINGS`, a PyTorch state dict.
        width: factor on the number of channels.
        sync_batch_norm: whether, in training, BatchNorm normalizes with the batch of all replicas.
        batch_norm: which moving statistics it has, "shared", "per_stream" or "frozen": see `FusedBatchNormalization`.

    Returns:
        Keras model: (B, H, W, 3) in [0, 255] -> (B, h, w, d), named "backbone". Besides `training` it takes
        `local_stream`, whether the images are the local stream's.

    Raises:
        ValueError: see `check_backbone`; or weights of another architecture.
        FileNotFoundError: no such weights file; or the ImageNet weights could not be downloaded.
    """
    if isinstance(name, keras.Model):
        return _wrap(fuse_batch_norm(name, BATCH_NORM_MOMENTUM, sync_batch_norm, batch_norm), as_it_is)
    check_backbone(name, backbone_width=width, weights=weights)
    entry = BACKBONES[name]
    if weights == "imagenet" and entry.package:
        weights = find_packaged_weights(entry.package, name)
    if weights == "imagenet":
        network = _download(name, width)
    else:
        network = _build_network(entry, None, width)
        if weights is not None:
            _load_weights(network, Path(weights), name)
    network = use_depthwise_convolutions(network)
    network = fuse_batch_norm(network, BATCH_NORM_MOMENTUM, sync_batch_norm, batch_norm)
    return _wrap(network, SCALINGS[entry.scaling])


def check_any_backbone(
    network: str | keras.Model,
    *,
    backbone_width: float,
    image_size: int,
    glance_size: int | None,
    local_size: int | None,
    weights: str | Path | None,
    batch_norm: str = "shared",
    sync_batch_norm: bool = False,
) -> None:
    """`check_backbone` for a name; for a network of the user's own, check that it can be a backbone.

    Raises:
        ValueError: no functional or sequential model; another shape than images in and one map out; options that a
            network of its own does not take; a glance that does not divide the image; a crop larger than it.
    """
    if isinstance(network, str):
        check_backbone(
            network,
            backbone_width=backbone_width,
            image_size=image_size,
            glance_size=glance_size,
            local_size=local_size,
            weights=weights,
            batch_norm=batch_norm,
            sync_batch_norm=sync_batch_norm,
        )
        return
    inputs, outputs = getattr(network, "inputs", None) or [], getattr(network, "outputs", None) or []
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    if len(inputs) != 1 or len(outputs) != 1 or [len(one) for one in shapes] != [4, 4] or shapes[0][-1] != 3:
        raise ValueError(
            "`backbone` must be a name, or a functional or sequential Keras model from images (B, H, W, 3) to one"
            f" activation map (B, h, w, d). Received: {network!r} with the shapes {shapes}"
        )
    if backbone_width != 1.0 or weights not in ("imagenet", None):
        raise ValueError(
            "`backbone_width` and `weights` are for backbones given by name: a model keeps its own. Leave them out."
        )
    sides = {image_size if glance_size is None else glance_size, local_size or glance_size or image_size}
    fixed = {side for side in shapes[0][1:3] if side is not None}
    if fixed and fixed != sides:
        raise ValueError(
            f"`backbone` takes images of {' and '.join(map(str, sorted(fixed)))} px, and has to take"
            f" {' and '.join(map(str, sorted(sides)))}: build it with keras.Input((None, None, 3))."
        )
    check_sizes(image_size, glance_size, local_size)


def _wrap(network: keras.Model, scaling: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    images = keras.Input(network.inputs[0].shape[1:])
    backbone = keras.Model(images, network(scaling(images)), name="backbone")
    pass_on(backbone, LOCAL_STREAM)
    return backbone


def _build_network(entry: Backbone, weights: str | None, width: float) -> keras.Model:
    """The network from scaled images (B, H, W, 3) to (B, h, w, d)."""
    if entry.network in OWN_NETWORKS:
        return OWN_NETWORKS[entry.network](**{"width": width} if entry.widths else {})
    widths = {"alpha": width} if entry.widths else {}
    make = getattr(keras.applications, entry.network)
    return make(include_top=False, weights=weights, input_shape=(None, None, 3), **widths)


def _download(name: str, width: float) -> keras.Model:
    """A network of `keras.applications` with its ImageNet weights."""
    try:
        return _build_network(BACKBONES[name], "imagenet", width)
    except ValueError:
        raise
    except Exception as error:
        raise FileNotFoundError(
            f"ImageNet weights of {name} could not be downloaded ({str(error)[:120]}). Pass the path of a file"
            " with them as `weights` (it is what `keras.applications` saves without the top), or none to train from"
            f" scratch; or take the backbone efficientnet_lite0, whose weights come from a package index: {EXTRA}"
        ) from error


def _load_weights(network: keras.Model, path: Path, name: str) -> None:
    if is_state_dict(path):
        tensors = read_state_dict(path).tensors
        if name not in NAMINGS:
            raise ValueError(
                f"`weights`: {path} is a file of PyTorch's, which fits the backbones {', '.join(NAMINGS)}, not"
                f" {name}. It looks like {looks_like(tensors) or 'none of them'}."
            )
        try:
            fill_network(network, tensors, name)
        except ValueError as error:
            raise ValueError(f"`weights`: {path} does not fit: {error}.") from error
        return
    try:
        network.load_weights(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`weights`: {path} does not hold weights of {name} without its top: {reason}"
        ) from error
