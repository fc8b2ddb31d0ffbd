"""A run's folder: opened, resumed or refused, locked, and the small files in it. Loads no TensorFlow.

config.yaml         every option, resolved; `fit --config` repeats the run
classes.txt         class names, one a line, in the order of the model's outputs
environment.json    versions of what computed it, and a hash of the pictures that it learns from
checkpoints/        state to go on from, last.weights.h5, best.weights.h5
history.csv         a row an epoch
tensorboard/        the same and more, as curves and pictures
metrics.json        the result, by split: the run is complete
imported.json       where the weights come from, of a run that `import_run` made
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import platform
import shlex
import shutil
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcar_tf import __version__
from mcar_tf.config import MAY_CHANGE, NOT_RECORDED, FitConfig, config_to_yaml, read_config
from mcar_tf.runs.splits import VALIDATION
from pipelines import files
from pipelines.files import flush_to_disk, write_text
from pipelines.manifest import Manifest
from pipelines.words import spell

LOCK = ".lock"


@contextlib.contextmanager
def open_run_folder(config: FitConfig, folder: Path, manifest: Manifest) -> Iterator[None]:
    """Make a run folder, or see that the one there may be gone on with; nobody else writes it inside a `with` block.

    Raises:
        FileExistsError: there is a run and neither `resume` nor `overwrite`, or the folder holds something else, or
            another process writes it.
        ValueError: the run to resume was made by other options, of another version, or on other data.
    """
    if is_run(folder):
        if config.resume and not config.overwrite:
            with locked(folder):
                check_resumable(config, folder, manifest)
                yield
            return
        if not config.overwrite:
            state = "complete" if (folder / "metrics.json").is_file() else "unfinished"
            raise FileExistsError(
                f"{folder} holds a run already ({state}). --resume goes on with it, --overwrite deletes it,"
                " --out-dir puts this one elsewhere."
            )
        delete_run(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and not a run folder. Choose another --out-dir.")
    partial = _beside(folder, "partial")
    partial.mkdir(parents=True)
    write_text(partial / "config.yaml", config_to_yaml(config))
    write_text(partial / "classes.txt", "".join(f"{name}\n" for name in manifest.classes))
    environment = versions() | {"data": learnt_from(config, manifest)}
    write_text(partial / "environment.json", json.dumps(environment, indent=1) + "\n")
    with locked(partial):
        try:
            partial.replace(folder)
        except OSError:  # a process that was started at the same moment was faster
            shutil.rmtree(partial)
            raise FileExistsError(_being_written(folder)) from None
        flush_to_disk(folder.parent)
        yield


def delete_run(folder: Path) -> None:
    """Delete a run and its baseline's, but not under the feet of a process that writes one."""
    with contextlib.ExitStack() as stack:
        for lock in folder.rglob(LOCK):
            stack.enter_context(locked(lock.parent))
        # Cut off amid its deletion, it must not pass for a run.
        aside = folder.rename(_beside(folder, "deleted"))
    shutil.rmtree(aside)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{kind}-{folder.name}-{uuid.uuid4().hex}")


def learnt_from(config: FitConfig, manifest: Manifest) -> str:
    """A hash of the shards that a run trains and validates on."""
    splits = [manifest.splits[name] for name in (config.train_split, VALIDATION) if name in manifest.splits]
    shards = "".join(shard.sha256 for split in splits for shard in split.shards)
    return hashlib.sha256(shards.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of what computes a run."""
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"mcar_tf": __version__, "python": platform.python_version(), **packages}


def deciding_options(config: FitConfig) -> dict[str, Any]:
    """Every option that may decide what is computed, as it is spelled on the command line."""
    left_out = {*MAY_CHANGE, *NOT_RECORDED}
    return {spell(name): value for name, value in vars(config).items() if name not in left_out}


def check_resumable(config: FitConfig, folder: Path, manifest: Manifest) -> None:
    """Refuse to go on with a run of other options, classes or pictures."""
    before = deciding_options(read_config(folder / "config.yaml"))
    differing = [
        f"--{name} was {before[name]}, is {value}"
        for name, value in deciding_options(config).items()
        if before[name] != value
    ]
    if differing:
        raise ValueError(
            f"{folder} was started with other options: {'; '.join(differing)}."
            f" Only {', '.join(f'--{spell(name)}' for name in MAY_CHANGE)} may change on --resume."
        )
    if read_classes(folder) != manifest.classes:
        raise ValueError(f"{folder} was trained on other classes than those of {config.dataset} now.")
    before = json.loads((folder / "environment.json").read_text()).get("data")
    if before not in (None, learnt_from(config, manifest)):  # None: a run of before this was noted
        raise ValueError(
            f"{folder} was started on other pictures or labels than those of {config.dataset} now: it has been built"
            " anew. --overwrite starts the run anew, --out-dir puts a new one elsewhere."
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second writer out of a run folder; the lock goes with the process, however it ends."""
    with files.locked(folder / LOCK, _being_written(folder)):
        yield


def _being_written(folder: Path) -> str:
    return f"{folder} is being written by another process. Wait for it, or stop it."


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return (folder / "config.yaml").is_file()


def read_run_config(folder: Path) -> FitConfig:
    """What a run was made with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    if not is_run(folder):
        raise FileNotFoundError(
            f"{folder} is not a run folder: it holds no config.yaml (python -m mcar_tf.fit makes one)."
        )
    return read_config(folder / "config.yaml")


def own_results(folder: Path, config: FitConfig) -> Path:
    """Where `evaluate` leaves what a run is worth on its own split: in the run folder, whose `metrics.json` says that
    the run is complete; so for one that is not, elsewhere.
    """
    if (folder / "metrics.json").is_file():
        return folder
    return folder / "evaluations" / f"{config.eval_split},unfinished"


def command_on(folder: Path, name: str) -> str:
    """The line that a user types to run one of the commands on a run folder."""
    return f"python -m mcar_tf.{name} --run {shlex.quote(str(folder))}"


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What `import_run` noted of the file that a run's weights come from; None for a run that was trained here."""
    file = folder / "imported.json"
    return json.loads(file.read_text()) if file.is_file() else None


def read_classes(folder: Path) -> tuple[str, ...]:
    """Class names of a run."""
    return tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())


def write_history(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `history.csv` as of the state that a run goes on from."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_known, rows))
    write_text(path, text.getvalue())


def append_history(path: Path, row: dict[str, Any]) -> None:
    """Add an epoch's row."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(_known(row))


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a CSV file, where what is unknown (NaN) is an empty field."""
    return {
        name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()
    }
