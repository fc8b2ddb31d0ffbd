"""`mcar_tf.load_run`: a trained model for Python users, whose mistakes are told in Python's spelling."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mcar_tf.config import change_without_training
from mcar_tf.models.arguments import checked
from mcar_tf.runs import loading
from mcar_tf.runs.folder import read_run_config


@checked
def load_run(
    path: str | os.PathLike[str],
    *,
    checkpoint: Literal["last", "best"] = "last",
    selection: Literal["top", "bottom", "random"] = "top",
    image_size: int | None = None,
    glance_size: int | None = None,
    local_size: int | None = None,
    top_n: int | None = None,
    tau: float | None = None,
    fusion: Literal["max", "mean"] | None = None,
    look_band: Sequence[float] | None = None,
    look_doubt: float | None = None,
) -> loading.Run:
    """Load the model of a run; `predict` of what it returns answers for pictures.

    No weights depend on the options from `image_size` on: each may differ from what the run was trained with, and
    None keeps it as it was. `mcar_tf.build_mcar` says what they are.

    Args:
        path: the run folder.
        checkpoint: "last", the result of the run, or "best", which exists if the run had a validation split.
        selection: which classes' maps become regions.
        image_size: side of the images in px.
        glance_size: side in px to which the images are reduced for the first look.
        local_size: side of the regions' crops in px.
        top_n: regions looked at per image.
        tau: threshold in [0, 1) that a map must reach inside a region.
        fusion: how both streams become one answer.
        look_band: two probabilities, between which a class is looked at again.
        look_doubt: least doubt of an image that is looked at again, in bits.

    Raises:
        FileNotFoundError: there is no run, or it has not finished an epoch yet.
        TypeError: there is no such option.
        ValueError: the run is of another version, or a value is of another type or outside its range.
    """
    changes = {
        "image_size": image_size,
        "glance_size": glance_size,
        "local_size": local_size,
        "top_n": top_n,
        "tau": tau,
        "fusion": fusion,
        "look_band": None if look_band is None else list(look_band),
        "look_doubt": look_doubt,
    }
    # `loading.load_run` would refuse the same, with the options' names as on a command line.
    change_without_training(read_run_config(Path(path)), changes, named=str)
    return loading.load_run(Path(path), checkpoint=checkpoint, selection=selection, **changes)
