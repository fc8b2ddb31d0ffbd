"""Read the tensors of a PyTorch weights file by name: `.pth`, `.pt`, `.pth.tar` or `.safetensors`."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from mcar_tf.models.weights.pytorch import read_pytorch
from mcar_tf.models.weights.tensors import Tensor, Tensors

# The keys under which checkpoints keep the state dict.
KEYS = ("state_dict", "model_state_dict", "model")
# Prefixes that wrappers put before every name.
PREFIXES = ("module.", "model.")
# safetensors' names for types of numbers -> ours.
SAFETENSORS_KINDS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "U8": "uint8"}
SAFETENSORS_KINDS |= {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "BOOL": "bool"}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """What a file holds.

    Attributes:
        tensors: the tensors by name, without prefixes.
        notes: plain values stored beside them, such as `epoch` and `arch`.
    """

    tensors: Tensors
    notes: dict[str, Any]


def is_state_dict(path: Path) -> bool:
    """Whether a file is PyTorch's or safetensors', by its first bytes (names may end in anything) or its suffix."""
    with path.open("rb") as file:
        start = file.read(16)
    return (
        start.startswith((b"PK", b"\x80")) or _is_safetensors(start) or path.suffix in (".pth", ".pt", ".tar")
    )


def read_state_dict(path: Path) -> StateDict:
    """Read the names, shapes and positions of a file's tensors; their values are only read when asked for.

    Raises:
        ValueError: the file holds something else, or is damaged; the message is one sentence that names the file.
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
    """Whether a file starts like safetensors: eight bytes with the header's length, then the header in JSON."""
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
    """Find the dict of tensors in the saved value, and the plain values beside it."""
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
