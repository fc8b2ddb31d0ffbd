"""The export folder: what is in it, and whether a folder is one. Loads no TensorFlow.

saved_model/1/             for TensorFlow Serving and `tf.saved_model.load`
mcar-<precision>.tflite    for LiteRT on phones
labels.txt                 class names, one a line, in the order of the outputs
thresholds.json            after `calibrate`: the probability from which on each class counts as present
card.md                    data, recipe, metrics, limits, and how far each form is from the model
parity.json                the last, in numbers
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS, THRESHOLDS, CARD, PARITY = "labels.txt", "thresholds.json", "card.md", "parity.json"


def check_place(folder: Path, overwrite: bool) -> None:
    """See that an export may be written to a folder.

    Raises:
        FileExistsError: an export is there and `overwrite` is false; or something else is, which is never replaced.
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
        FileNotFoundError: the folder is no export folder.
    """
    if not (folder / PARITY).is_file():
        raise FileNotFoundError(
            f"{folder} is not an export folder: it holds no {PARITY} (python -m mcar_tf.export makes one)."
        )
    return json.loads((folder / PARITY).read_text(encoding="utf-8"))


def labels_text(classes: Sequence[str]) -> str:
    """The text of `labels.txt`: a name a line, in the order of the model's outputs."""
    return "".join(f"{name}\n" for name in classes)


def thresholds_text(classes: Sequence[str], thresholds: Sequence[float]) -> str:
    """The text of `thresholds.json`: class name -> the probability from which on it counts as present."""
    named = dict(zip(classes, map(float, thresholds), strict=True))
    return json.dumps(named, indent=1, ensure_ascii=False) + "\n"


def parity_text(content: Mapping[str, Any]) -> str:
    """The text of `parity.json`."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
