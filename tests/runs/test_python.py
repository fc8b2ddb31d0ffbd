"""`mcar_tf.load_run` names arguments as Python users write them, and the nearest right thing."""

import inspect

import numpy as np
import pytest

import mcar_tf
from mcar_tf.model_options import WITHOUT_TRAINING
from mcar_tf.runs.python import load_run


def test_what_may_change_without_training_are_arguments():
    names = list(inspect.signature(load_run).parameters)
    assert names == ["path", "checkpoint", "selection", *WITHOUT_TRAINING]
    assert mcar_tf.load_run is load_run


def test_what_is_changed_is_changed(untrained_run):
    run = load_run(str(untrained_run), top_n=np.int64(1), fusion="mean", look_band=(0.1, 0.9), tau=None)
    assert (run.model.top_n, run.model.fusion, run.model.look_band) == (1, "mean", (0.1, 0.9))
    assert run.config.tau == 0.5


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"image_size": "9p"}, ValueError, "`image_size` must be a whole number. Received: '9p'. Did you mean `9`?"),
        ({"image_size": 9.0}, ValueError, "`image_size` must be a whole number. Received: 9.0. Did you mean `9`?"),
        ({"top_n": "2"}, ValueError, "`top_n` must be a whole number. Received: '2'. Did you mean `2`?"),
        ({"size": 100}, TypeError, "`load_run` has no argument `size`. Did you mean `image_size`?"),
        ({"checkpoint": "bset"}, ValueError,
         "`checkpoint` must be one of last, best. Received: 'bset'. Did you mean `best`?"),
        ({"glance_size": 24}, ValueError,
         "`glance_size` must divide `image_size`, 32; the nearest that does is 16. Received: 24"),
        ({"local_size": 48}, ValueError,
         "`local_size` must be at most `image_size`, 32: a region has no more pixels than that. Received: 48"),
        ({"tau": 1.5}, ValueError, "`tau` must be in [0, 1). Received: 1.5"),
        ({"top_n": 0, "fusion": "mean"}, ValueError,
         "`fusion` does nothing with `top_n 0`, which looks once. Leave it out."),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_told_in_one_line_as_it_is_written(untrained_run, given, error, said):
    with pytest.raises(error) as caught:
        load_run(untrained_run, **given)
    assert str(caught.value) == said


@pytest.mark.parametrize("path", [None, 3])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match=f"`path` must be a text or a path. Received: {path}."):
        load_run(path)
