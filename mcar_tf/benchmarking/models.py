"""Time the plain backbone, the two-stream model and its parts, for given backbones and sizes (Table IX)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mcar_tf.benchmarking.timing import CLASSES, median_interval, time_in_turn
from mcar_tf.models.mcar import MCAR, build_mcar
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD
from pipelines.words import percent

PARTS = ("baseline", "total", "global", "global_to_local", "local")

HEADER = (
    f"{'backbone':14}{'size':>5}{'batch':>6}{'baseline':>10}{'total':>10}{'global':>10}{'G-to-L':>9}{'local':>10}"
    f"{'total / baseline':>22}{'G-to-L / total':>23}"
)
LEGEND = (
    "milliseconds a batch, medians; G-to-L is selection, localization and crops; in brackets the 95 % interval of the"
    " median of the paired ratio."
)


def table_row(result: dict[str, Any]) -> str:
    """A result as a table row under `HEADER`."""
    low, high = result["total_over_baseline_interval"]
    share_low, share_high = map(percent, result["global_to_local_share_interval"])
    times = zip(PARTS, (10, 10, 10, 9, 10), strict=True)
    return (
        f"{result['backbone']:14}{result['image_size']:5}{result['batch_size']:6}"
        + "".join(f"{result[f'{part}_ms']:{width}.1f}" for part, width in times)
        + f"{result['total_over_baseline']:8.2f} [{low:.2f}, {high:.2f}]"
        + f"{percent(result['global_to_local_share']):>8} % [{share_low}, {share_high}]"
    )


def time_models(
    backbones: Sequence[str],
    image_sizes: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    top_n: int = 4,
    glance_size: int | None = None,
    local_size: int | None = None,
    mode: str = "infer",
    precision: str = "float32",
    xla: bool = False,
    rounds: int = 15,
) -> Iterator[dict[str, Any]]:
    """Time every combination of backbone, image size and batch size; each is a row of Table IX.

    Args:
        backbones: keys of `mcar_tf.models.backbone_table.BACKBONES`.
        image_sizes: sides S of the images in px.
        batch_sizes: batch sizes B.
        top_n: regions per image, N.
        glance_size: side in px to which the global pass reduces the images (the plain backbone does not); None: it
            sees them at full size.
        local_size: side of the regions' crops in px; None: `glance_size`.
        mode: "infer": forward passes; "train": whole training steps, and forward and backward of each stream.
        precision: Keras dtype policy of the backbone.
        xla: whether XLA compiles the parts.
        rounds: number of rounds; every part runs once in each.

    Yields:
        The options of the row; `<part>_ms`, the median of each of `PARTS` in milliseconds per batch; and two ratios,
        `total_over_baseline` and `global_to_local_share`: medians over the rounds, each with the 95 % interval of
        the median under `<name>_interval`.
    """
    keras.config.set_dtype_policy(precision)
    options: dict[str, Any] = {
        "top_n": top_n,
        "glance_size": glance_size,
        "local_size": local_size,
        "mode": mode,
        "xla": xla,
    }
    for backbone, image_size, batch_size in itertools.product(backbones, image_sizes, batch_sizes):
        times = time_in_turn(make_parts(backbone, image_size, batch_size, **options), rounds)
        ratio = times["total"] / times["baseline"]
        share = times["global_to_local"] / times["total"]
        yield {
            "backbone": backbone,
            "image_size": image_size,
            "batch_size": batch_size,
            "top_n": top_n,
            "glance_size": glance_size or image_size,
            "local_size": local_size or glance_size or image_size,
            "mode": mode,
            "precision": precision,
            "xla": xla,
            **{f"{name}_ms": float(np.median(values)) for name, values in times.items()},
            "total_over_baseline": float(np.median(ratio)),
            "total_over_baseline_interval": median_interval(ratio),
            "global_to_local_share": float(np.median(share)),
            "global_to_local_share_interval": median_interval(share),
            "rounds": rounds,
        }


def make_parts(
    backbone: str,
    image_size: int,
    batch_size: int,
    *,
    top_n: int = 4,
    glance_size: int | None = None,
    local_size: int | None = None,
    mode: str = "infer",
    xla: bool = False,
) -> dict[str, Callable[[], None]]:
    """For each of `PARTS`, a function that computes it once and waits. Arguments are those of `time_models`."""
    model = build_to_time(
        backbone, image_size, top_n=top_n, xla=xla, glance_size=glance_size, local_size=local_size
    )
    plain = build_to_time(backbone, image_size, top_n=0, xla=xla, local_size=local_size)
    training = mode == "train"
    batch = random_batch(batch_size, image_size)
    images, labels = batch["image"], batch["labels"]
    features, logits = model.global_pass(images, training=False)
    boxes = model.find_boxes(features, model.select_classes(logits), images)

    def gradient_of(loss: Callable[[], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, model.trainable_variables)

    def global_loss() -> tf.Tensor:
        return binary_cross_entropy(labels, model.global_pass(images, training=True)[1], batch["weights"])

    def local_loss() -> tf.Tensor:
        logits = tf.reduce_max(model.look_at(images, boxes, training=True), axis=1)
        return binary_cross_entropy(labels, logits, batch["weights"])

    def global_to_local() -> tf.Tensor:
        found = model.find_boxes(features, model.select_classes(logits), images)
        return model.crop(images, found)

    crops = global_to_local()

    parts = {
        "baseline": (lambda: plain.train_step(batch)) if training else (lambda: plain(images)),
        "total": (lambda: model.train_step(batch)) if training else (lambda: model(images)),
        "global": (lambda: gradient_of(global_loss))
        if training
        else (lambda: model.global_pass(images, False)),
        "global_to_local": global_to_local,
        "local": (lambda: gradient_of(local_loss)) if training else (lambda: model.local_pass(crops, False)),
    }

    return {name: wait_for(function, xla) for name, function in parts.items()}


def build_to_time(backbone: str, image_size: int, *, top_n: int, xla: bool = False, **options: Any) -> MCAR:
    """A model with random weights, ready to train at a rate of zero. `options` are those of `build_mcar`."""
    model = build_mcar(CLASSES, backbone, image_size, top_n=top_n, weights=None, **options)
    model.compile(TwoRateSGD(0.0), binary_cross_entropy, jit_compile=xla)
    model.optimizer.build(model.trainable_variables)
    return model


def random_batch(batch_size: int, image_size: int) -> dict[str, tf.Tensor]:
    """A batch of noise with as many labels as COCO's pictures have, on the device."""
    images = tf.random.stateless_uniform((batch_size, image_size, image_size, 3), seed=(0, 0), maxval=255.0)
    labels = tf.cast(tf.random.stateless_uniform((batch_size, CLASSES), seed=(0, 1)) < 0.04, tf.float32)
    return {"image": images, "labels": labels, "weights": tf.ones_like(labels)}


def wait_for(function: Callable[[], Any], xla: bool = False) -> Callable[[], None]:
    """A function as a graph, traced at the first call, that returns when the device is done."""
    compiled = tf.function(function, jit_compile=xla, autograph=False)

    def run() -> None:
        compiled()
        # On a GPU outputs arrive asynchronously, and one being there does not mean that the others are.
        tf.test.experimental.sync_devices()

    return run
