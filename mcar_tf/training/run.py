"""A config, a folder and a prepared set in, a finished run out: opened or resumed, trained, evaluated.

Loads TensorFlow only where there is something left to train.
"""

import json
import time
from pathlib import Path
from typing import Any

from mcar_tf.config import FitConfig
from mcar_tf.runs.folder import open_run_folder
from mcar_tf.training.signals import Stopping
from mcar_tf.training.workers import OneProcess
from pipelines.command import load_tensorflow
from pipelines.manifest import Manifest


def run_to_end(
    config: FitConfig, folder: Path, manifest: Manifest, stopping: Stopping, workers: OneProcess
) -> tuple[dict[str, Any], float]:
    """Bring the run in a folder to its end.

    Returns:
        Its metrics on `config.eval_split`, and the seconds that this process trained and evaluated.
    """
    started = time.monotonic()
    with open_run_folder(config, folder, manifest):
        # Of several workers each comes along, for the others may not be as far.
        if workers.several or not (folder / "metrics.json").is_file():
            load_tensorflow()
            from mcar_tf.training.loop import train

            started = time.monotonic()
            with workers.losing_others(stopping):
                train(config, folder, manifest, stopping, workers)
    return json.loads((folder / "metrics.json").read_text())[config.eval_split], time.monotonic() - started
