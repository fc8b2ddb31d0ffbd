"""Read a run folder: its config, and the pictures that its exports may be calibrated on. Loads no TensorFlow."""

import shlex
from pathlib import Path

from mcar_tf.config import FitConfig
from mcar_tf.runs.folder import is_complete, read_run_config
from mcar_tf.runs.splits import find_split, own_splits
from pipelines.manifest import Manifest, Portion, Split
from pipelines.words import typed


def read_finished_run(run: Path) -> FitConfig:
    """The config of a finished run.

    Raises:
        FileNotFoundError: the folder holds no run, or one that is not finished.
    """
    config = read_run_config(run)
    if not is_complete(run):
        raise FileNotFoundError(
            f"{run} is unfinished: it holds no metrics.json. Finish it: {typed('mcar_tf.fit')} --config"
            f" {shlex.quote(str(run / 'config.yaml'))} --out-dir {shlex.quote(str(run))} --resume"
        )
    return config


def find_calibration_split(config: FitConfig, manifest: Manifest) -> Split | Portion:
    """The pictures that int8 may be calibrated on: those the run was trained on, none that it held out.

    Raises:
        ValueError: the set has no such split.
    """
    if config.train_split not in own_splits(config, manifest):
        raise ValueError(
            f"int8 finds its ranges on the run's training split, and {manifest.name} has no {config.train_split} (it"
            f" has {', '.join(manifest.splits)}). Prepare the set with it, or export without int8."
        )
    return find_split(config, manifest, config.train_split)
