"""A weights file of PyTorch's world in, its tensors by name out: `.pth`, `.pt`, `.pth.tar` or `.safetensors`."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from mcar_tf.models.weights.pytorch import read_pytorch
from mcar_tf.models.weights.tensors import Tensor, Tensors

# Under which key a checkpoint keeps the state dict.
KEYS = ("state_dict", "model_state_dict", "model")
# What wrappers put before every name.
PREFIXES = ("module.", "model.")
# safetensors' names of kinds -> ours.
SAFETENSORS_KINDS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "U8": "uint8"}
SAFETENSORS_KINDS |= {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool"}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """What a file holds.

    Attributes:
        tensors: by name, without prefixes.
        notes: plain values that stand beside them, such as `epoch` and `arch`.
    """

    tensors: Tensors
    notes: dict[str, Any]


def is_state_dict(path: Path) -> bool:
    """Whether a file is one of PyTorch's or safetensors', by how it begins: names end in anything."""
    with path.open("rb") as file:
        start = file.read(16)
    return (
        start.startswith((b"PK", b"\x80")) or _is_safetensors(start) or path.suffix in (".pth", ".pt", ".tar")
    )


def read_state_dict(path: Path) -> StateDict:
    """Read the names, shapes and places of a file's tensors; their values are read when they are asked for.

    Raises:
        ValueError: the file holds something else, or is damaged: one sentence that names it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if _is_safetensors(start) or path.suffix == ".safetensors":
            return StateDict(_strip_prefixes(_read_safetensors(path)), {})
        return _find_state_dict(read_pytorch(path))
    except ValueError as error:
        raise ValueError(f"`weights`: {path} can't be read: {error}.") from error


def _is_safetensors(start: bytes) -> bool:
    """Eight bytes that say how long the header is, and the header, which is JSON."""
    return start[8:9] == b"{" and start[5:8] == b"\0\0\0"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ValueError("safetensors is not installed: pip install 'mcar-tf[weights]'") from None
    try:
        file = safe_open(path, framework="numpy")
        tensors = {}
        for name in file.keys():  # noqa: SIM118  (it is no dict)
            part = file.get_slice(name)
            kind = SAFETENSORS_KINDS.get(part.get_dtype(), part.get_dtype())
            tensors[name] = Tensor(kind, tuple(part.get_shape()), functools.partial(file.get_tensor, name))
        return tensors
    except SafetensorError as error:
        raise ValueError(f"it is damaged: {error}") from error


def _find_state_dict(saved: Any) -> StateDict:
    """The dict of tensors in what was saved, and what stands beside it."""
    if not isinstance(saved, dict):
        raise ValueError(f"it holds a {type(saved).__name__}, no state dict")
    notes = {key: value for key, value in saved.items() if isinstance(value, str | int | float)}
    for key in KEYS:
        if isinstance(saved.get(key), dict):
            saved = saved[key]
            break
    tensors = {name: value for name, value in saved.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"it holds no state dict, only {', '.join(map(str, list(saved)[:5])) or 'nothing'}")
    return StateDict(_strip_prefixes(tensors), notes)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(str(name).startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
