"""Runs a config to its end in a folder: opens or resumes the run, trains and evaluates it.

Loads TensorFlow only if there is something left to train.
"""

import time
from pathlib import Path
from typing import Any

from mcar_tf.config import FitConfig
from mcar_tf.evaluating.metrics_file import read_metrics
from mcar_tf.option_rules import NO_SPLIT
from mcar_tf.runs.folder import METRICS, command_on, is_complete
from mcar_tf.runs.opening import open_run_folder
from mcar_tf.runs.splits import find_split
from mcar_tf.training.signals import Stopping
from mcar_tf.training.workers import OneProcess
from pipelines.command import load_tensorflow
from pipelines.manifest import Manifest
from pipelines.words import counted


def run_to_end(
    config: FitConfig, folder: Path, manifest: Manifest, stopping: Stopping, workers: OneProcess
) -> tuple[dict[str, Any], float]:
    """Bring the run in a folder to its end.

    Returns:
        The run's metrics on `config.eval_split`, and for how many seconds this process trained and evaluated.
    """
    started = time.monotonic()
    with open_run_folder(config, folder, manifest) as place:
        # With several workers, each one takes part even if its own run is complete: the others' may not be.
        if workers.several or not (place.resumed and is_complete(folder)):
            load_tensorflow()
            from mcar_tf.runs.device import say_device, warn_of_slow_precision
            from mcar_tf.training.loop import train
            from pipelines.verify import naming_shards

            if workers.leads:
                pictures = find_split(config, manifest, config.train_split).examples
                looks = f"{1 + config.top_n} looks a picture" if config.top_n else "one look a picture"
                say_device(
                    config.precision,
                    f"{config.backbone} at {config.image_size} px, {looks}",
                    f"{counted(pictures, 'picture')} to learn from",
                    counted(len(manifest.classes), "class"),
                    str(folder),
                )
                warn_of_slow_precision(config.precision)
            started = time.monotonic()
            shards = [file for split in manifest.splits.values() for file in split.files]
            with workers.losing_others(stopping), naming_shards(shards):
                train(config, place, manifest, stopping, workers)
    return read_result(folder, config), time.monotonic() - started


def read_result(folder: Path, config: FitConfig) -> dict[str, Any]:
    """The metrics of a finished run on its `eval_split`, by stream; empty if it has no such split.

    Raises:
        ValueError: `metrics.json` is damaged.
    """
    result = read_metrics(folder / METRICS).get(
        config.eval_split, {} if config.eval_split == NO_SPLIT else None
    )
    if not isinstance(result, dict):
        raise ValueError(
            f"{folder / METRICS} holds no metrics of {config.eval_split}, the run's --eval-split. Measure them:"
            f" {command_on(folder, 'evaluate')}"
        )
    return result
