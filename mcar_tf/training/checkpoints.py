"""Checkpoints of a run: a run that was stopped anywhere continues as if it had never been stopped.

    checkpoints/epoch-0007-step-0000120/    after 7 epochs and 120 steps of the next: variables.* (TensorFlow's
                                            checkpoint format), state.json, checksums.json

A checkpoint is written under a temporary name and then renamed, so it is never there in part. `checksums.json` holds
the checksums of its other files, which are verified before anything is restored.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mcar_tf.runs.weights import full_disk_named
from pipelines.files import file_sha256, flush_to_disk, folder_written_whole, remove, remove_partial
from pipelines.reading import read_json, read_json_object

STATE = "state.json"
NAME = re.compile(r"epoch-(\d+)-step-(\d+)")


class Checkpoints:
    """The last few checkpoints of a run.

    Args:
        folder: the folder that holds them.
        variables: all variables that training changes: those of model, optimizer and metrics. Their order matters.
        keep: how many checkpoints to keep.
    """

    def __init__(self, folder: Path, variables: Sequence[keras.Variable], keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self.bytes = sum(int(v.value.dtype.size) * int(tf.size(v)) for v in variables)
        self._checkpoint = tf.train.Checkpoint(**{f"v{i:05d}": v.value for i, v in enumerate(variables)})

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Write the variables and `state`. Does nothing if there is a checkpoint of this step already.

        Args:
            epoch: number of whole epochs done.
            step: number of steps done in the current epoch.
            state: what else a run needs to continue; must be serializable as JSON.

        Raises:
            OSError: the disk is full or can't be written to; earlier checkpoints are unchanged.
        """
        target = self.folder / f"epoch-{epoch:04d}-step-{step:07d}"
        # It exists if it was saved after an epoch's last step, and a signal now interrupts the epoch's validation.
        if target.is_dir():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < 1.1 * self.bytes + 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        with full_disk_named(self.folder), folder_written_whole(target) as partial:
            self._checkpoint.write(str(partial / "variables"))
            (partial / STATE).write_text(json.dumps(state))
            checksums = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
            (partial / "checksums.json").write_text(json.dumps(checksums))
            for path in [*partial.iterdir(), partial]:
                flush_to_disk(path)
        flush_to_disk(self.folder)
        for old in _saved(self.folder)[: -self.keep]:
            remove(old)

    def restore(self, path: Path) -> dict[str, Any]:
        """Restore a checkpoint that `find_checkpoint` found, and return its state.

        Raises:
            ValueError: it belongs to another model or optimizer, or its state is damaged.
        """
        try:
            self._checkpoint.read(str(path / "variables")).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ValueError(f"{path} is of another model or optimizer than this run's.") from error
        return read_json_object(path / STATE)

    def latest(self) -> Path | None:
        """The newest checkpoint's folder, if there is one."""
        return next(reversed(_saved(self.folder)), None)


def find_checkpoint(folder: Path, warn: Callable[[str], None] = print) -> Path | None:
    """The newest intact checkpoint in a folder, or None. Partial files that killed processes left there are removed.

    A broken checkpoint is renamed to `broken-...`, reported in one line, and the one before it is tried.

    Args:
        folder: the folder that holds the checkpoints; no other process may write there.
        warn: called with the line about a broken checkpoint.
    """
    remove_partial(folder)
    for path in reversed(_saved(folder)):
        problem = _problem_of(path)
        if problem is None:
            return path
        aside = path.with_name(f"broken-{path.name}")
        remove(aside)
        path.rename(aside)
        warn(f"checkpoint {path.name} is broken ({problem}): set aside as {aside.name}")
    return None


def _saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    found = [(name, path) for path in folder.glob("epoch-*") if (name := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(((int(name[1]), int(name[2])), path) for name, path in found)]


def _problem_of(path: Path) -> str | None:
    """What is wrong with the checkpoint in a folder, or None."""
    try:
        checksums = read_json(path / "checksums.json")
        values = any(name.startswith("variables.data-") for name in checksums)
        if not values or not {STATE, "variables.index"} <= checksums.keys():
            return "checksums.json is damaged"
        for name, checksum in checksums.items():
            if file_sha256(path / name) != checksum:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    except (ValueError, AttributeError):
        return "checksums.json is damaged"
    return None
