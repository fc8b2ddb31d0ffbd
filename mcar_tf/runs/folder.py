"""A run's folder and the small files in it: their names, and how they are written and read. Loads no TensorFlow.

config.yaml         the value of every option; `fit --config` repeats the run
classes.txt         class names, one per line, in the order of the model's outputs
environment.json    versions of the software, and hashes of the classes and of the pictures that the run learns from
checkpoints/        the state to continue from, last.weights.h5, best.weights.h5
history.csv         one row per epoch
tensorboard/        the same and more, as curves and pictures
metrics.json        the result, by split; its presence means that the run is complete
imported.json       where the weights come from, in a run that `import_run` made
"""

import csv
import hashlib
import io
import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcar_tf import __version__
from mcar_tf.config import MAY_CHANGE, NOT_RECORDED, FitConfig, read_config
from mcar_tf.runs.splits import VALIDATION, hold_out_alike, own_splits, share_training, trains_on
from pipelines.files import naming, write_text
from pipelines.manifest import Manifest
from pipelines.reading import read_json_object, read_lines
from pipelines.words import spell, typed

CONFIG, CLASSES, ENVIRONMENT, METRICS = "config.yaml", "classes.txt", "environment.json", "metrics.json"
MARKS = (CONFIG, CLASSES, ENVIRONMENT)  # a folder with all of these is a run folder
LOCK = ".lock"


def deciding_options(config: FitConfig) -> dict[str, Any]:
    """Every option that can affect what is computed: its name on the command line -> its value."""
    left_out = {*MAY_CHANGE, *NOT_RECORDED}
    return {spell(name): value for name, value in vars(config).items() if name not in left_out}


def versions() -> dict[str, str]:
    """Versions of the software that computes a run, by name."""
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"mcar_tf": __version__, "python": platform.python_version(), **packages}


def environment_of(config: FitConfig, manifest: Manifest) -> dict[str, str]:
    """The content of `environment.json`."""
    hashes = {"data": learnt_from(config, manifest), "classes": hash_classes(manifest.classes)}
    device = {}
    if "tensorflow" in sys.modules:  # otherwise nothing has been computed on a device
        from mcar_tf.runs.device import describe_device

        device = {"device": describe_device()}
    return versions() | device | hashes


def read_environment(folder: Path) -> dict[str, Any]:
    """The content of a run's `environment.json`.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / ENVIRONMENT
    content = read_json_object(path)
    for name, value in content.items():
        if not isinstance(value, str):
            raise ValueError(f"{path} is damaged: `{name}` must be a text. It is {str(value)[:40]}.")
    return content


def learnt_from(config: FitConfig, manifest: Manifest) -> str:
    """A hash of the shards that a run trains and validates on."""
    splits = own_splits(config, manifest)
    learnt = [splits[name] for name in (config.train_split, VALIDATION) if name in splits]
    return _hash_of([shard.sha256 for split in learnt for shard in split.shards], end="")


def check_same_pictures(folder: Path, config: FitConfig, manifest: Manifest) -> None:
    """Refuse the run's set if it is no longer what it was when the run was started.

    This can't be checked, and nothing is refused, for a set of another name, for one without the run's training
    split, and for a run from before the hash was recorded.

    Raises:
        ValueError: the set has been built or divided anew.
    """
    if manifest.name != config.dataset or config.train_split not in own_splits(config, manifest):
        return
    if read_environment(folder).get("data") not in (None, learnt_from(config, manifest)):
        raise ValueError(
            f"{folder} was started on other pictures or labels than those of {manifest.name} now, by its"
            f" {ENVIRONMENT}: the set has been built or divided anew, so what the run learnt from may be among what"
            " it is measured on. Build the set as it was, or train anew (fit --overwrite, or another --out-dir)."
        )


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return all((folder / name).is_file() for name in MARKS)


def read_run_config(folder: Path) -> FitConfig:
    """The options that a run was made with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    for name in MARKS:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is not a run folder: it holds no {name} ({typed('mcar_tf.fit')} makes one)."
            )
    return read_config(folder / CONFIG)


def learnt_before(config: FitConfig, name: str) -> Path | None:
    """The run from whose weights a run started, or one before it, that learnt from a split of the same set; or None.

    A validation split that the run holds out is learnt where that other run learnt from the same training split and
    did not hold out the same pictures. Runs that are gone are passed over: what they learnt can't be known.
    """

    def learnt(before: FitConfig) -> bool:
        if name == VALIDATION and config.val_fraction:
            return share_training(before, config) and not hold_out_alike(before, config)
        return trains_on(before, name)

    seen: set[Path] = set()
    source, dataset = config.init_from, config.dataset
    while source and is_run(source) and source.resolve() not in seen:
        seen.add(source.resolve())
        before = read_run_config(source)
        if before.dataset == dataset and learnt(before):
            return source
        source = before.init_from
    return None


def is_complete(folder: Path) -> bool:
    """Whether a run came to its end: its `metrics.json` is written last.

    Raises:
        ValueError: something other than a file is called `metrics.json`, such as a folder or a broken link.
    """
    file = folder / METRICS
    if file.is_file():
        return True
    if os.path.lexists(file):
        kind = "a link that leads nowhere" if file.is_symlink() else "not a file"
        raise ValueError(f"{file} is {kind}. Put the run's own {METRICS} back in its place.")
    return False


def own_results(folder: Path, config: FitConfig) -> Path:
    """The folder where `evaluate` writes a run's results on its own split: the run folder if the run is complete.

    Results of an unfinished run go elsewhere, because a `metrics.json` in the run folder means that it is complete.
    """
    if is_complete(folder):
        return folder
    return folder / "evaluations" / f"{config.eval_split},unfinished"


def command_on(folder: Path, name: str) -> str:
    """The command line that runs one of the commands on a run folder."""
    return f"{typed(f'mcar_tf.{name}')} --run {shlex.quote(str(folder))}"


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What `import_run` recorded about the file that the weights come from; None for a run that was trained here."""
    file = folder / "imported.json"
    return read_json_object(file) if file.is_file() else None


def read_classes(folder: Path) -> tuple[str, ...]:
    """Class names of a run, in the order of its model's outputs.

    Raises:
        ValueError: they are not the names, or not in the order, that the run was started with.
    """
    classes = read_lines(folder / CLASSES)
    if read_environment(folder).get("classes") not in (None, hash_classes(classes)):
        raise ValueError(
            f"{folder / CLASSES} is not what the run was started with, by its {ENVIRONMENT}: a name or their order"
            " was changed, and the model's outputs would get wrong names. Put it back as it was."
        )
    return classes


def hash_classes(classes: Sequence[str]) -> str:
    """A hash of the class names in their order, which shows when lines of `classes.txt` were changed or swapped."""
    return _hash_of(classes)


def write_history(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `history.csv` anew, with the rows of the state that a run continues from."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_known, rows))
    write_text(path, text.getvalue())


def append_history(path: Path, row: dict[str, Any]) -> None:
    """Append an epoch's row to `history.csv`."""
    with naming(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(_known(row))


def _hash_of(texts: Sequence[str], end: str = "\n") -> str:
    return hashlib.sha256("".join(text + end for text in texts).encode()).hexdigest()


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """The row with an empty field for each unknown value (NaN)."""
    return {
        name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()
    }
