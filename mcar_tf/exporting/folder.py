"""The export folder: what it contains, and how to recognize one. Loads no TensorFlow.

saved_model/1/             for TensorFlow Serving and `tf.saved_model.load`
mcar-<precision>.tflite    for LiteRT on phones
mcar.onnx                  for onnxruntime, OpenVINO and others
labels.txt                 class names, one per line, in the order of the outputs
thresholds.json            after `calibrate`: the probability from which on each class counts as present
card.md                    data, recipe, metrics, limits, and how far each form is from the model
parity.json                how far each form is from the model, in numbers
SHA256SUMS                 checksums of all these files; `sha256sum -c SHA256SUMS` checks them too
"""

import contextlib
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.files import file_sha256, find_partial, folder_written_whole, locked, remove_partial
from pipelines.reading import read_json_object
from pipelines.words import typed

LABELS, THRESHOLDS, CARD, PARITY = "labels.txt", "thresholds.json", "card.md", "parity.json"
CHECKSUMS = "SHA256SUMS"


@contextlib.contextmanager
def new_export_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder to fill inside the `with` block; afterwards it becomes the export folder `folder`.

    If the block fails, nothing is left of it. What a killed export left half-written is removed.

    Args:
        folder: where the export goes.
        overwrite: whether to replace an existing export.

    Raises:
        FileExistsError: as in `check_place`, before or after the block; or another process writes the same export.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, f"{folder} is being written by another process. Wait for it, or stop it."):
        try:
            _clear_up(folder)
            check_place(folder, overwrite)
            with folder_written_whole(folder) as partial:
                yield partial
                write_checksums(partial)
                check_place(folder, overwrite)  # something else may have written there meanwhile
        finally:
            with contextlib.suppress(PermissionError):  # Windows can't delete open files
                lock.unlink()


def _clear_up(folder: Path) -> None:
    """Remove what a killed export left behind, or move it into place if it was complete."""
    name = glob.escape(folder.name)
    whole = [path for path in find_partial(folder.parent, name) if (path / CHECKSUMS).is_file()]
    if whole and not folder.exists():
        max(whole, key=lambda path: (path / CHECKSUMS).stat().st_mtime).rename(folder)
    remove_partial(folder.parent, name)


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` for all files in a folder, in the format of the program `sha256sum`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def check_checksums(folder: Path, parts: tuple[str, ...] = ("",)) -> None:
    """Check that the files of an export folder are unchanged; a folder without `SHA256SUMS` passes.

    Args:
        folder: of the export.
        parts: what the names of the files to check begin with; all by default.

    Raises:
        ValueError: a file is missing or differs; the message names it.
    """
    if not (folder / CHECKSUMS).is_file():
        return
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not name.startswith(parts):
            continue
        if not path.is_file() or file_sha256(path) != expected:
            what = "differs from" if path.is_file() else "is missing from"
            raise ValueError(
                f"{path} {what} what was exported (see {CHECKSUMS}). Copy it anew, or export again."
            )


def check_place(folder: Path, overwrite: bool) -> None:
    """Check that an export may be written to a folder.

    Raises:
        FileExistsError: an export is there and `overwrite` is false; or something else, which is never replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / PARITY).is_file():
        raise FileExistsError(
            f"{folder} is there already and is no export folder: it holds no {PARITY}. --out-dir puts this one"
            " elsewhere."
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} is there already. --overwrite replaces it, --out-dir puts this one elsewhere."
        )


def read_parity(folder: Path) -> dict[str, Any]:
    """The content of `parity.json`: `model`, `dataset`, `split`, `forms`, `bars`.

    Raises:
        FileNotFoundError: the folder is not an export folder.
    """
    if not (folder / PARITY).is_file():
        raise FileNotFoundError(
            f"{folder} is not an export folder: it holds no {PARITY} ({typed('mcar_tf.export')} makes one)."
        )
    return read_json_object(folder / PARITY)


def find_saved_model(folder: Path) -> Path:
    """The folder of the latest version of an export's SavedModel.

    Raises:
        FileNotFoundError: the folder is not an export folder, or has no SavedModel.
    """
    read_parity(folder)
    versions = [path for path in (folder / "saved_model").glob("*") if path.name.isdecimal()]
    if not versions:
        raise FileNotFoundError(f"{folder} holds no SavedModel: export it with --formats saved_model.")
    return max(versions, key=lambda version: int(version.name))


def labels_text(classes: Sequence[str]) -> str:
    """The text of `labels.txt`: one name per line, in the order of the model's outputs."""
    return "".join(f"{name}\n" for name in classes)


def thresholds_text(classes: Sequence[str], thresholds: Sequence[float]) -> str:
    """The text of `thresholds.json`: class name -> the probability from which on it counts as present."""
    named = dict(zip(classes, map(float, thresholds), strict=True))
    return json.dumps(named, indent=1, ensure_ascii=False) + "\n"


def parity_text(content: Mapping[str, Any]) -> str:
    """The text of `parity.json`."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
