"""What TensorBoard shows of a run: losses, rates, throughput and mAP by epoch, and where the model looks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.config import FitConfig

# Column of history.csv -> name of the curve.
CURVES = {
    "loss": "loss/total",
    "global_loss": "loss/global",
    "local_loss": "loss/local",
    "val_mAP_fused": "mAP/fused",
    "val_mAP_global": "mAP/global",
    "val_mAP_local": "mAP/local",
    "learning_rate": "rate/backbone",
    "images_per_second": "speed/images_per_second",
}


class TensorBoardLog:
    """Writes event files.

    Args:
        folder: where they lie.
        config: shown as text.
        classes: names for the boxes.
    """

    def __init__(self, folder: Path, config: FitConfig, classes: Sequence[str]) -> None:
        self.writer = tf.summary.create_file_writer(str(folder))
        self.classes = classes
        rows = "".join(f"| {name} | {value} |\n" for name, value in dataclasses.asdict(config).items())
        with self.writer.as_default():
            tf.summary.text("config", f"| option | value |\n|---|---|\n{rows}", step=0)

    def write_epoch(self, row: dict[str, Any], model: keras.Model, images: tf.Tensor) -> None:
        """Curves of one epoch, and a panel of images (B, S, S, 3) in [0, 255] with their regions."""
        from mcar_tf.visualize import make_region_panel

        with self.writer.as_default():
            for column, name in CURVES.items():
                if column in row:
                    tf.summary.scalar(name, row[column], step=row["epoch"])
            outputs = {name: value.numpy() for name, value in model(images, training=False).items()}
            tf.summary.image(
                "regions", make_region_panel(images.numpy(), outputs, self.classes)[None], step=row["epoch"]
            )
        self.writer.flush()
