"""Writes what TensorBoard shows of a run: losses, rates, speed and mAP by epoch, AP by class, and regions."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf import metrics
from mcar_tf.config import MODEL, RECIPE, START, FitConfig
from mcar_tf.evaluating import columns
from mcar_tf.evaluating.columns import STREAMS, VALIDATION_MAP
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.reporting.drawing import make_region_panel

# Column of history.csv -> name of the curve. TensorBoard groups curves by what stands before the slash.
CURVES = {
    "loss": "loss/total",
    "global_loss": "loss/global",
    "local_loss": "loss/local",
    **{column: f"mAP/{stream}" for stream, column in VALIDATION_MAP.items()},
    "learning_rate": "rate/backbone",
    "images_per_second": "speed/images_per_second",
}
PANEL = 4  # images per panel, so that letters stay legible on one of TensorBoard's cards
# Hyperparameters that every run shows, in addition to those that it changes from their defaults.
VARIED = (
    "backbone",
    "dataset",
    "epochs",
    "image_size",
    "learning",
    "loss",
    "pooling",
    "seed",
    "tau",
    "top_n",
)
MOST_PR_CURVES = 20  # one page of curves; sets with more classes get only the curve over all decisions


class TensorBoardLog:
    """Writes event files.

    Args:
        folder: the folder to write them to.
        config: the run's options, shown as text and as hyperparameters.
        classes: C names.
    """

    def __init__(self, folder: Path, config: FitConfig, classes: Sequence[str]) -> None:
        from tensorboard.plugins.hparams import api as hparams

        self.writer = tf.summary.create_file_writer(str(folder))
        self.config, self.classes = config, classes
        options = dataclasses.asdict(config)
        # The plugin accepts only numbers, booleans and strings.
        groups = {field.name: field.metadata["group"] for field in dataclasses.fields(config)}
        deciding = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in options.items()
            if name in VARIED
            or (groups[name] in (MODEL, START, RECIPE) and value != getattr(FitConfig(), name))
        }
        results = [hparams.Metric(f"result/mAP_{stream}") for stream in STREAMS]
        with self.writer.as_default():
            tf.summary.text("config", markdown_table(("option", "value"), options.items()), step=0)
            hparams.hparams_config([hparams.HParam(name) for name in deciding], results)
            hparams.hparams(deciding)

    def write_epoch(
        self,
        row: dict[str, Any],
        model: keras.Model,
        images: tf.Tensor,
        predictions: Predictions | None = None,
    ) -> None:
        """Write the values of one epoch, and panels of images with their regions.

        Args:
            row: the epoch's row of `history.csv`.
            model: the model after the epoch.
            images: (B, S, S, 3) in [0, 255].
            predictions: predictions on the validation split, for the AP of each class.
        """
        step = row["epoch"]
        with self.writer.as_default():
            for column, name in CURVES.items():
                if column in row and not math.isnan(row[column]):
                    tf.summary.scalar(name, row[column], step=step)
            if self.config.optimizer == "sgd":
                factor = self.config.head_learning_rate / self.config.learning_rate
                tf.summary.scalar("rate/head", factor * row["learning_rate"], step=step)
            if predictions is not None:
                aps = metrics.average_precision(predictions.labels, predictions.probs, predictions.weights)
                for name, ap in zip(self.classes, aps, strict=True):
                    if not math.isnan(ap):
                        # With the name "AP" alone, 80 cards would come before those of losses and mAP.
                        tf.summary.scalar(f"per_class_AP/{name}", ap, step=step)
            if self.config.top_n:
                outputs = {name: value.numpy() for name, value in model(images, training=False).items()}
                for first in range(0, len(images), PANEL):
                    part = slice(first, first + PANEL)
                    panel = make_region_panel(
                        images[part].numpy(),
                        {name: value[part] for name, value in outputs.items()},
                        self.classes,
                    )
                    tf.summary.image(f"regions/{first // PANEL + 1}", panel[None], step=step)
        self.writer.flush()

    def write_result(self, split: str, result: Mapping[str, Any], predictions: Predictions) -> None:
        """Write the run's result as a table, and its precision-recall curves.

        Args:
            split: the split that the result was measured on.
            result: what `mcar_tf.evaluating.results.evaluate_predictions` returned.
            predictions: the predictions that it was measured from.
        """
        step = self.config.epochs
        shown = columns.measures(columns.Detail.PAPER)
        streams = columns.streams_of(self.config.top_n)
        rows = [(stream, *columns.cells(shown, result[stream])) for stream in streams]
        curves = precision_recall_summaries(self.classes, predictions)
        with self.writer.as_default():
            tf.summary.text(
                "result",
                f"{split}, in percent\n\n{markdown_table(('stream', *columns.titles(shown)), rows)}",
                step=step,
            )
            for stream in STREAMS:
                if not math.isnan(result[stream]["mAP"]):
                    tf.summary.scalar(f"result/mAP_{stream}", result[stream]["mAP"], step=step)
            for summary in curves:
                tf.summary.experimental.write_raw_pb(summary, step=step)
        self.writer.flush()


def precision_recall_summaries(classes: Sequence[str], predictions: Predictions) -> list[bytes]:
    """Fused precision-recall curves for TensorBoard's plugin: one over all decisions, then one for each class."""
    from tensorboard.plugins.pr_curve import summary

    truth = predictions.labels > 0
    curves = [summary.pb("precision_recall/all", truth, predictions.probs, weights=predictions.weights)]
    if len(classes) <= MOST_PR_CURVES:
        curves += [
            summary.pb(
                f"precision_recall/{name}",
                truth[:, c],
                predictions.probs[:, c],
                weights=predictions.weights[:, c],
            )
            for c, name in enumerate(classes)
            if (truth[:, c] & (predictions.weights[:, c] > 0)).any()
        ]
    return [curve.SerializeToString() for curve in curves]


def markdown_table(header: Sequence[str], rows: Any) -> str:
    """Rows of any values as a Markdown table; a `|` in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |\n" for line in lines)
