"""Predictions are read as they were written, by a process that loads no TensorFlow."""

import subprocess
import sys

import numpy as np
from made_predictions import CLASSES, random_predictions

from mcar_tf.evaluating.predictions import read_predictions, write_predictions


def test_predictions_are_read_as_they_were_written(tmp_path):
    predictions = random_predictions()
    write_predictions(tmp_path / "predictions.npz", predictions, CLASSES, "test")
    again, classes, split = read_predictions(tmp_path / "predictions.npz")
    assert (classes, split) == (CLASSES, "test")
    for name, value in vars(predictions).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]


def test_reading_and_measuring_load_no_tensorflow():
    code = (
        "import sys, mcar_tf.evaluating.results, mcar_tf.evaluating.predictions, mcar_tf.evaluating.columns\n"
        "sys.exit(not {'tensorflow', 'keras'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
