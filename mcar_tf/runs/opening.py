"""Opens a run folder for writing, to start, resume or overwrite a run, and locks it against other processes.

A run that overwrites an old one replaces it when `begin` is called, which happens once the new model is built. Until
then nothing in the folder changes. Only files that a run writes are ever removed. Loads no TensorFlow.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mcar_tf.config import MAY_CHANGE, FitConfig, config_to_yaml, read_config
from mcar_tf.runs.folder import (
    CLASSES,
    CONFIG,
    ENVIRONMENT,
    LOCK,
    MARKS,
    METRICS,
    check_same_pictures,
    deciding_options,
    environment_of,
    is_complete,
    is_run,
    read_classes,
    read_environment,
)
from pipelines import files
from pipelines.files import PARTIAL, flush_to_disk, partial_path, remove, write_text
from pipelines.manifest import Manifest
from pipelines.words import spell

BASELINE = "baseline"  # `--compare-baseline`: a second run in this folder inside the run's folder
# The files that a run, and the commands that work on a run, write into its folder. Pictures that `predict` drew are
# not among them, so they stay.
RUN_FILES = (
    *(CONFIG, CLASSES, ENVIRONMENT, METRICS, "history.csv", "regions.png", "thresholds.json", "report.html"),
    *("predictions.npz", "per_class.csv", "coco_results.json", "results/*/Main/comp?_cls_*.txt"),
    *("checkpoints/epoch-*-step-*", "checkpoints/broken-epoch-*-step-*", "checkpoints/*.weights.h5*"),
    "tensorboard/events.out.tfevents.*",
    *(
        f"audit/{name}"
        for name in ("audit.html", "cases.csv", "labels.json", "label_studio.json", "label_studio.xml")
    ),
    "audit/data/" + "[0-9]" * 5 + "-*",
    *(f"evaluations/*/{name}" for name in (METRICS, "predictions.npz", "per_class.csv", "coco_results.json")),
)


class OpenRun:
    """A run folder that only this process writes to.

    Attributes:
        path: the folder.
        resumed: whether the run in it is continued.
    """

    def __init__(self, path: Path, config: FitConfig, manifest: Manifest, resumed: bool) -> None:
        self.path, self.config, self.manifest, self.resumed = path, config, manifest, resumed
        self.begun = resumed
        self.identity = self._identity()

    def begin(self) -> None:
        """Remove an old run from the folder and write the new run's first files. Does nothing for a resumed run.

        Call it once the new run's model is built. If it fails, the old run is left as it was.
        """
        self.check()
        if self.begun:
            return
        old = [(file, partial_path(file)) for file in written_by_a_run(self.path)]
        try:
            for file, aside in old:
                file.rename(aside)
            environment = json.dumps(environment_of(self.config, self.manifest), indent=1) + "\n"
            write_text(self.path / ENVIRONMENT, environment)
            write_text(self.path / CLASSES, "".join(f"{name}\n" for name in self.manifest.classes))
            write_text(self.path / CONFIG, config_to_yaml(self.config))  # last: it makes the folder a run
        except BaseException:
            for file, aside in old:
                if aside.exists():
                    remove(file)
                    aside.rename(file)
            raise
        self.begun = True
        # These are the old run's files, and those that an earlier `begin` left when it was killed.
        for left in half_written_by_a_run(self.path):
            remove(left)
        _remove_empty_folders(self.path, [file for file, _ in old])
        flush_to_disk(self.path)

    def check(self) -> None:
        """Check that the folder is still the one that was opened.

        Raises:
            FileNotFoundError: it was moved, deleted or replaced meanwhile.
        """
        if self._identity() != self.identity:
            raise FileNotFoundError(
                f"{self.path} is no longer the folder that this run writes: it was moved, deleted or replaced."
                " Nothing more is written. What was saved lies wherever it is now: fit --resume --out-dir goes on"
                " with it."
            )

    def leave_nothing(self) -> None:
        """Remove the folder if it is still the one that was opened and holds only its lock file."""
        if self._identity() == self.identity and [path.name for path in self.path.iterdir()] == [LOCK]:
            with contextlib.suppress(OSError):  # Windows can't remove a file that is open
                (self.path / LOCK).unlink()
                self.path.rmdir()

    def _identity(self) -> list[tuple[int, int] | None]:
        return [_identity_of(self.path), _identity_of(self.path / LOCK)]


@contextlib.contextmanager
def open_run_folder(config: FitConfig, folder: Path, manifest: Manifest) -> Iterator[OpenRun]:
    """Open a run folder inside a `with` block. `OpenRun.begin` then starts a new run in it.

    Raises:
        FileExistsError: the folder holds a run but neither `resume` nor `overwrite` is set, or it holds something
            else, or another process writes to it.
        ValueError: the run to resume was made with other options, by another version, or on other data.
    """
    check_place(config, folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        held.enter_context(locked(folder))
        check_place(config, folder)  # another process may have used the folder before it was locked
        resumed = is_run(folder) and not config.overwrite
        if resumed:
            check_resumable(config, folder, manifest)
        elif (folder / BASELINE / LOCK).exists():
            held.enter_context(locked(folder / BASELINE))
        if resumed and not is_complete(folder):
            for left in half_written_by_a_run(folder):
                remove(left)
        # While a folder is open, its inode number is not reused, even if the folder is deleted.
        held.enter_context(_kept_open(folder))
        place = OpenRun(folder, config, manifest, resumed)
        try:
            yield place
        finally:
            if made and not place.begun:  # the new run never started
                place.leave_nothing()


def check_place(config: FitConfig, folder: Path) -> None:
    """Refuse a folder that this run may not be written into.

    Raises:
        FileExistsError: it holds a run, and neither `resume` nor `overwrite` says what to do with it; or it holds
            something else.
    """
    if is_run(folder):
        if config.overwrite:
            check_written_by_us(folder)
        elif not config.resume:
            state = "complete" if is_complete(folder) else "unfinished"
            raise FileExistsError(
                f"{folder} holds a run already ({state}). --resume goes on with it, --overwrite deletes it,"
                " --out-dir puts this one elsewhere."
            )
    elif folder.is_dir() and not is_beginning(folder):
        raise FileExistsError(
            f"{folder} is not empty and not a run folder, which holds {', '.join(MARKS)}. Choose another --out-dir."
        )


def check_written_by_us(folder: Path) -> None:
    """Refuse to remove anything if the files that mark a run folder were not written by this program.

    Raises:
        FileExistsError: `environment.json` does not say which version of this program wrote the folder.
    """
    try:
        ours = "mcar_tf" in read_environment(folder)
    except ValueError:
        ours = False
    if not ours:
        raise FileExistsError(
            f"{folder / ENVIRONMENT} does not say that a run of mcar_tf wrote this folder: --overwrite deletes"
            " nothing there. Choose another --out-dir, or delete the folder yourself."
        )


def is_beginning(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed `begin` left behind."""
    found = {path for path in folder.rglob("*") if not path.is_dir() and path.name != LOCK}
    found -= {path for path in found if f"/{PARTIAL}" in f"/{path.relative_to(folder).as_posix()}"}
    if {path.relative_to(folder).as_posix() for path in found} <= {ENVIRONMENT, CLASSES}:
        return not found or (folder / ENVIRONMENT) in found
    # `begin` renames the old run's `config.yaml` first: it was killed while it renamed the old run's files.
    cut_off = any(folder.glob(f"{PARTIAL}*-{CONFIG}"))
    ours = set(written_by_a_run(folder))
    return cut_off and all(ours & {path, *path.parents} for path in found)


def written_by_a_run(folder: Path) -> list[Path]:
    """The files that a run and its baseline wrote into the folder; first `config.yaml`, which makes it a run."""
    return [
        file
        for place in (folder, folder / BASELINE)
        for pattern in RUN_FILES
        for file in sorted(place.glob(pattern))
    ]


def half_written_by_a_run(folder: Path) -> list[Path]:
    """Files of a run under the temporary names that they have while they are written, or while they are replaced."""
    half_written = f"{PARTIAL}{'[0-9a-f]' * 12}-"
    names = [str(Path(pattern).with_name(half_written + Path(pattern).name)) for pattern in RUN_FILES]
    return [file for place in (folder, folder / BASELINE) for name in names for file in place.glob(name)]


def check_resumable(config: FitConfig, folder: Path, manifest: Manifest) -> None:
    """Refuse to resume a run that was started with other options, classes or pictures."""
    before = deciding_options(read_config(folder / CONFIG))
    differing = [
        f"--{name} was {before[name]}, is {value}"
        for name, value in deciding_options(config).items()
        if before[name] != value
    ]
    if differing:
        raise ValueError(
            f"{folder} was started with other options: {'; '.join(differing)}."
            f" Only {', '.join(f'--{spell(name)}' for name in MAY_CHANGE)} may change on --resume."
            f" To go on with others, start a new run from its weights: --init-from {folder}"
        )
    if read_classes(folder) != manifest.classes:
        raise ValueError(f"{folder} was trained on other classes than those of {config.dataset} now.")
    check_same_pictures(folder, config, manifest)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second writer out of a run folder. The lock is released when the process ends, however it ends."""
    message = f"{folder} is being written by another process. Wait for it, or stop it."
    with files.locked(folder / LOCK, message):
        yield


@contextlib.contextmanager
def _kept_open(folder: Path) -> Iterator[None]:
    if os.name == "nt":  # Windows can't open folders, and does not move a folder in which a file is open
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(descriptor)


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Numbers that identify a file or folder uniquely; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_empty_folders(folder: Path, removed: Sequence[Path]) -> None:
    """Remove the folders below `folder` that are empty after some files were removed."""
    above = {parent for file in removed for parent in file.relative_to(folder).parents} - {Path()}
    for parent in sorted(above, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # the folder is not empty
            (folder / parent).rmdir()
