"""Saves a model's weights with a checksum beside them, and loads them only if the checksum fits.

checkpoints/last.weights.h5             Keras' format
checkpoints/last.weights.h5.sha256      as `sha256sum -c` reads it; during an update, one line for each version
"""

import contextlib
import errno
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from mcar_tf.models.keras_internals import weights_as_bytes
from pipelines.files import file_sha256, is_full_disk, write_bytes, write_text
from pipelines.reading import read_lines


def write_weights(model: keras.Model, path: Path) -> None:
    """Save a model's weights as `path`, which ends in `.weights.h5`, whole or not at all.

    Raises:
        OSError: the disk is full or can't be written to; the earlier weights are unchanged.
    """
    content = weights_as_bytes(model)
    new = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    beside = checksum_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(path.parent):
        # If the process is killed between two of these writes, one of the checksums still fits the file.
        old = f"{beside.read_text().splitlines()[0]}\n" if beside.is_file() and path.is_file() else ""
        write_text(beside, new + old)
        write_bytes(path, content)
        write_text(beside, new)


def load_weights(model: keras.Model, path: Path, described_by: Path) -> None:
    """Load what `write_weights` wrote.

    Args:
        model: a model built as `described_by` says.
        path: the weights file.
        described_by: the file that describes the model, for errors.

    Raises:
        ValueError: the file is damaged, belongs to another model, or holds numbers that are not finite.
    """
    beside = checksum_path(path)
    if beside.is_file():  # older versions wrote no checksum
        known = [line.split(" ")[0] for line in read_lines(beside)]
        if file_sha256(path) not in known:
            raise ValueError(
                f"{path} is damaged: its checksum is not the one in {beside.name}. Copy it again, or go on from the"
                " last checkpoint: fit --resume."
            )
    try:
        with warnings.catch_warnings():
            # Keras would leave layers that the file lacks as they are, and go on.
            warnings.filterwarnings("error", "Skipping nested container")
            model.load_weights(path)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, UserWarning) as error:
        raise ValueError(
            f"{path} does not fit the model that {described_by} describes: {' '.join(str(error).split())[:200]}"
        ) from error
    for weight in model.weights:
        if weight.value.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(weight.value))):
            raise ValueError(
                f"{path} holds numbers that are not finite, first in {weight.path}: its training has diverged, or the"
                " file is damaged. Train again with a lower --learning-rate."
            )


def checksum_path(path: Path) -> Path:
    """The path of the checksum of a weights file."""
    return path.with_name(f"{path.name}.sha256")


@contextlib.contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Inside a `with` block, report a full disk by the operating system's error.

    TensorFlow reports a full disk by a `ResourceExhaustedError`, which also stands for exhausted memory.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise
