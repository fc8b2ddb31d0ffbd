"""A run's folder and the small files in it: what they are called, written and read. Loads no TensorFlow.

config.yaml         every option, resolved; `fit --config` repeats the run
classes.txt         class names, one a line, in the order of the model's outputs
environment.json    versions of what computed it, and hashes of its classes and of the pictures that it learns from
checkpoints/        state to go on from, last.weights.h5, best.weights.h5
history.csv         a row an epoch
tensorboard/        the same and more, as curves and pictures
metrics.json        the result, by split: the run is complete
imported.json       where the weights come from, of a run that `import_run` made
"""

import csv
import hashlib
import io
import math
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcar_tf import __version__
from mcar_tf.config import MAY_CHANGE, NOT_RECORDED, FitConfig, read_config
from mcar_tf.runs.splits import VALIDATION
from pipelines.files import write_text
from pipelines.manifest import Manifest
from pipelines.reading import read_json_object, read_lines
from pipelines.words import spell

CONFIG, CLASSES, ENVIRONMENT, METRICS = "config.yaml", "classes.txt", "environment.json", "metrics.json"
MARKS = (CONFIG, CLASSES, ENVIRONMENT)  # by which a run folder is known
LOCK = ".lock"


def deciding_options(config: FitConfig) -> dict[str, Any]:
    """Every option that may decide what is computed, as it is spelled on the command line."""
    left_out = {*MAY_CHANGE, *NOT_RECORDED}
    return {spell(name): value for name, value in vars(config).items() if name not in left_out}


def versions() -> dict[str, str]:
    """Of what computes a run."""
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"mcar_tf": __version__, "python": platform.python_version(), **packages}


def environment_of(config: FitConfig, manifest: Manifest) -> dict[str, str]:
    """The content of `environment.json`."""
    hashes = {"data": learnt_from(config, manifest), "classes": hash_classes(manifest.classes)}
    device = {}
    if "tensorflow" in sys.modules:  # else nothing has been computed on any
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
    for name in ("mcar_tf", "data", "classes"):
        if not isinstance(content.get(name, ""), str):
            raise ValueError(f"{path} is damaged: `{name}` must be a text. It is {str(content[name])[:40]}.")
    return content


def learnt_from(config: FitConfig, manifest: Manifest) -> str:
    """A hash of the shards that a run trains and validates on."""
    splits = [manifest.splits[name] for name in (config.train_split, VALIDATION) if name in manifest.splits]
    return _hash_of([shard.sha256 for split in splits for shard in split.shards], end="")


def check_same_pictures(folder: Path, config: FitConfig, manifest: Manifest) -> None:
    """Refuse the run's set where it is no longer the one that the run was started on.

    Another set, one that lacks the run's training split, and a run of before this was noted can't be told apart.

    Raises:
        ValueError: it has been built or divided anew.
    """
    if manifest.name != config.dataset or config.train_split not in manifest.splits:
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
    """What a run was made with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    for name in MARKS:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is not a run folder: it holds no {name} (python -m mcar_tf.fit makes one)."
            )
    return read_config(folder / CONFIG)


def own_results(folder: Path, config: FitConfig) -> Path:
    """Where `evaluate` leaves what a run is worth on its own split: in the run folder, whose `metrics.json` says that
    the run is complete; so for one that is not, elsewhere.
    """
    if (folder / METRICS).is_file():
        return folder
    return folder / "evaluations" / f"{config.eval_split},unfinished"


def command_on(folder: Path, name: str) -> str:
    """The line that a user types to run one of the commands on a run folder."""
    return f"python -m mcar_tf.{name} --run {shlex.quote(str(folder))}"


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What `import_run` noted of the file that a run's weights come from; None for a run that was trained here."""
    file = folder / "imported.json"
    return read_json_object(file) if file.is_file() else None


def read_classes(folder: Path) -> tuple[str, ...]:
    """Class names of a run, in the order of its model's outputs.

    Raises:
        ValueError: they are not those that the run was started with.
    """
    classes = read_lines(folder / CLASSES)
    if read_environment(folder).get("classes") not in (None, hash_classes(classes)):
        raise ValueError(
            f"{folder / CLASSES} is not what the run was started with: a name or their order was changed, and the"
            " model's outputs would get wrong names. Put it back as it was."
        )
    return classes


def hash_classes(classes: Sequence[str]) -> str:
    """By which swapped lines of `classes.txt` are noticed."""
    return _hash_of(classes)


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


def _hash_of(texts: Sequence[str], end: str = "\n") -> str:
    return hashlib.sha256("".join(text + end for text in texts).encode()).hexdigest()


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a CSV file, where what is unknown (NaN) is an empty field."""
    return {
        name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()
    }
