"""Turns a checkpoint of the MCAR authors' PyTorch code into a run folder that every command accepts as one of ours.

Loads no TensorFlow before `import_checkpoint` is called.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcar_tf.config import FitConfig, config_to_yaml
from mcar_tf.models.weights.fitting import read_values
from mcar_tf.models.weights.names import AUTHORS, NAMINGS
from mcar_tf.models.weights.state_dict import StateDict, read_state_dict
from mcar_tf.runs.folder import CLASSES, CONFIG, ENVIRONMENT, METRICS, hash_classes, versions, write_history
from pipelines.files import file_sha256, folder_written_whole, write_text

HEAD = "convclass"
IMPORTABLE = tuple(
    name for name, namings in NAMINGS.items() if any(naming.whose == AUTHORS for naming in namings)
)


def check_checkpoint(path: Path, backbone: str, rows: Sequence[str]) -> StateDict:
    """Read a checkpoint, and check that it is one of MCAR with these classes.

    Args:
        path: the checkpoint file.
        backbone: a key of the backbone table.
        rows: class names in the order of the checkpoint.

    Raises:
        ValueError: the backbone can't be imported, the number of classes differs, or it is no checkpoint of MCAR.
    """
    if backbone not in IMPORTABLE:
        raise ValueError(f"`backbone` must be one of {', '.join(IMPORTABLE)}. Received: {backbone!r}")
    checkpoint = read_state_dict(path)
    head = checkpoint.tensors.get(f"{HEAD}.weight")
    if head is None or f"{HEAD}.bias" not in checkpoint.tensors:
        raise ValueError(
            f"{path} holds no {HEAD}.weight and {HEAD}.bias: it is no checkpoint of MCAR. As the first weights of a"
            " backbone it may do: python -m mcar_tf.fit --weights."
        )
    shapes = head.shape[2:], checkpoint.tensors[f"{HEAD}.bias"].shape
    if head.shape[0] != len(rows) or shapes != ((1, 1), (len(rows),)):
        raise ValueError(
            f"{path} was trained on {head.shape[0] if head.shape else 0} classes, and `classes` has {len(rows)}."
        )
    return checkpoint


def import_checkpoint(
    path: Path, checkpoint: StateDict, config: FitConfig, rows: Sequence[str], classes: Sequence[str]
) -> None:
    """Write the run folder.

    Args:
        path: the checkpoint file.
        checkpoint: its content, as `check_checkpoint` returned it.
        config: the options that the run will have; `out_dir` is the folder.
        rows: C class names in the order of the checkpoint.
        classes: the same names in the order that the run will have.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: the tensors are not those of the backbone.
    """
    from mcar_tf.runs.loading import build_model
    from mcar_tf.runs.weights import write_weights

    folder = config.run_dir
    check_folder(folder)
    model = build_model(config, len(classes), weights=str(path))
    kernel, bias = (read_values(checkpoint.tensors, f"{HEAD}.{part}") for part in ("weight", "bias"))
    order = [rows.index(name) for name in classes]
    model.classifier.set_weights([kernel[order, :, 0, 0].T, bias[order]])

    check_folder(folder)  # another process may have written to it meanwhile
    with folder_written_whole(folder) as partial:
        (partial / "checkpoints").mkdir()
        write_text(partial / CONFIG, config_to_yaml(config))
        write_text(partial / CLASSES, "".join(f"{name}\n" for name in classes))
        write_text(
            partial / ENVIRONMENT,
            json.dumps(versions() | {"classes": hash_classes(classes)}, indent=1) + "\n",
        )
        write_text(partial / "imported.json", json.dumps(describe(path, checkpoint), indent=1) + "\n")
        write_weights(model, partial / "checkpoints" / "last.weights.h5")
        write_history(partial / "history.csv", [])
        write_text(partial / METRICS, "{}\n")


def check_folder(folder: Path) -> None:
    """Refuse a run folder that is not empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already. Choose another --out-dir.")


def describe(path: Path, checkpoint: StateDict) -> dict[str, Any]:
    """Where imported weights come from: the file, its checksum, and what it says about itself."""
    said = {
        name: value for name, value in checkpoint.notes.items() if name in ("arch", "epoch", "best_score")
    }
    return {"file": path.name, "sha256": file_sha256(path)} | said
