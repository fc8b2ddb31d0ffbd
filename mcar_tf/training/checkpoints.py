"""A run's state, written so that a run stopped anywhere goes on as if it had not been.

    checkpoints/epoch-0007-step-0000120/    after 7 epochs and 120 steps of the next: variables.* (TensorFlow's
                                            checkpoint format), state.json, checksums.json
    checkpoints/last.weights.h5             the weights after the last whole epoch
    checkpoints/best.weights.h5             those of the epoch with the highest mAP on the validation split

A checkpoint is written beside its place and renamed: it is there whole or not at all. `checksums.json` holds those
of its other files, which are verified before anything is restored.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipelines.files import file_sha256, flush_to_disk, folder_written_whole, remove_partial, written_whole


class Checkpoints:
    """The last few checkpoints of a run.

    Args:
        folder: where they lie.
        variables: all that changes during training: of the model, the optimizer, the metrics. The order counts.
        keep: how many to keep.
        warn: what to do with a line about a broken checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        variables: Sequence[keras.Variable],
        keep: int = 2,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.warn = warn
        self.bytes = sum(int(v.value.dtype.size) * int(tf.size(v)) for v in variables)
        self._checkpoint = tf.train.Checkpoint(**{f"v{i:05d}": v.value for i, v in enumerate(variables)})

    def save(self, epoch: int, step: int, state: dict[str, Any]) -> None:
        """Write the variables and `state`, which JSON must be able to hold; nothing where that was done at this step.

        Args:
            epoch: whole epochs done.
            step: steps done of the current one.
            state: what else a run needs to go on.

        Raises:
            OSError: the disk is full or takes no writing; the checkpoints before are as they were.
        """
        target = self.folder / f"epoch-{epoch:04d}-step-{step:07d}"
        if target.is_dir():  # after an epoch's last step, and now by a signal amid its validation
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.folder).free < 1.1 * self.bytes + 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        with _full_disk_named(self.folder), folder_written_whole(target) as partial:
            self._checkpoint.write(str(partial / "variables"))
            (partial / "state.json").write_text(json.dumps(state))
            checksums = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
            (partial / "checksums.json").write_text(json.dumps(checksums))
            for path in [*partial.iterdir(), partial]:
                flush_to_disk(path)
        flush_to_disk(self.folder)
        for old in self._saved()[: -self.keep]:
            shutil.rmtree(old)

    def restore_latest(self) -> dict[str, Any] | None:
        """Restore the newest whole checkpoint and give its state; None if there is none.

        A broken one is renamed to `broken-...`, said in one line, and the one before it is used.

        Raises:
            ValueError: the newest checkpoint is whole, but of another model or optimizer.
        """
        remove_partial(self.folder)
        for path in reversed(self._saved()):
            problem = _problem_of(path)
            if problem is None:
                try:
                    self._checkpoint.read(str(path / "variables")).assert_consumed()
                except (AssertionError, ValueError) as error:
                    raise ValueError(f"{path} is of another model or optimizer than this run's.") from error
                return json.loads((path / "state.json").read_text())
            aside = path.with_name(f"broken-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            self.warn(f"checkpoint {path.name} is broken ({problem}): set aside as {aside.name}")
        return None

    def latest(self) -> Path | None:
        """The newest checkpoint's folder, if there is one."""
        return next(reversed(self._saved()), None)

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*"))


def write_weights(model: keras.Model, path: Path) -> None:
    """Save a model's weights as `path`, which ends in `.weights.h5`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _full_disk_named(path.parent), written_whole(path) as partial:
        model.save_weights(partial)


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Where the disk is full, say so in the operating system's words.

    TensorFlow and HDF5 have words of their own: a full disk is a `ResourceExhaustedError` to the one, as is a
    full memory, and a number inside a longer text to the other.
    """
    try:
        yield
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            known = getattr(error, "errno", None) == number or os.strerror(number) in str(error)
            if known:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def _problem_of(path: Path) -> str | None:
    """What is wrong with the checkpoint in a folder, or None."""
    try:
        checksums = json.loads((path / "checksums.json").read_text())
        if not {"state.json", "variables.index"} <= checksums.keys():
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
