"""Times one way to train and to infer: a measurement in as JSON, milliseconds out as a line of JSON.

    python -m mcar_tf.benchmarking.one_measurement '{"variant": "default", "backbone": "mobilenet_v2",
        "image_size": 256, "batch_size": 16, "top_n": 4, "precision": "mixed_float16", "rounds": 12}'

A process of its own for each: what a variant sets holds for a whole process.
"""

import functools
import json
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mcar_tf.benchmarking.models import build_to_time, random_batch, wait_for
from mcar_tf.benchmarking.timing import time_in_turn
from mcar_tf.models.mcar import MCAR
from mcar_tf.runs.device import describe_device

MODELS = ("mcar", "plain")


def main() -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


def measure(
    variant: str,
    backbone: str,
    image_size: int,
    batch_size: int,
    top_n: int,
    precision: str,
    rounds: int,
) -> dict[str, Any]:
    """Time training steps and inferences of the two-stream model and of its plain backbone, on random images.

    Args:
        variant: a key of `gpu_report.VARIANTS`.
        backbone: a key of `mcar_tf.models.backbone_table.BACKBONES`.
        image_size: side of the images in px.
        batch_size: images per batch.
        top_n: regions per image.
        precision: Keras dtype policy of the backbone.
        rounds: how often each is measured, after two rounds that only warm up.

    Returns:
        Medians in milliseconds, seconds of the first training step, the peak of the device's
        memory, and versions.
    """
    keras.config.set_dtype_policy(precision)
    if variant == "no_layout":
        tf.config.optimizer.set_experimental_options({"layout_optimizer": False})
    batch = random_batch(batch_size, image_size)
    result: dict[str, Any] = {}
    train, infer = {}, {}
    for name, regions in zip(MODELS, (top_n, 0), strict=True):
        model = build_to_time(backbone, image_size, top_n=regions, xla=variant == "xla")
        change(model, variant)
        train[name] = wait_for(functools.partial(model.train_step, batch), xla=variant == "xla")
        infer[name] = wait_for(functools.partial(model.predict_step, batch), xla=variant == "xla")
    start = time.perf_counter()
    train["mcar"]()
    result["first_step_s"] = time.perf_counter() - start
    for mode, functions in (("train", train), ("infer", infer)):
        for name, times in time_in_turn(functions, rounds).items():
            result[f"{name}_{mode}_ms"] = float(np.median(times))
    if tf.config.list_physical_devices("GPU"):
        result["peak_mib"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return {**result, "device": describe_device(), "versions": versions}


def change(model: MCAR, variant: str) -> None:
    """Make of a model what the variant is, as far as the process's environment does not."""
    if variant == "xla_backbone":

        @tf.function(jit_compile=True, autograph=False)
        def look(images: tf.Tensor, training: bool, local_stream: bool) -> tf.Tensor:
            return model.backbone(images, training=training, local_stream=local_stream)

        model.rematerialized = look  # what stands for the backbone in training


if __name__ == "__main__":
    main()
