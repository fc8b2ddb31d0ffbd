"""Read what `torch.save` wrote as dicts of tensors and plain values, without torch. No code in a file is run.

There are two formats: a zip archive since torch 1.6, and the older one, several pickles followed by the numbers.
"""

import io
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mcar_tf.models.weights.pickles import read_pickle
from mcar_tf.models.weights.tensors import KINDS, Array, Storage, Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# Names of torch.FloatStorage and similar classes -> a key of KINDS.
STORAGES = {
    "Half": "float16",
    "Float": "float32",
    "Double": "float64",
    "BFloat16": "bfloat16",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Byte": "uint8",
    "Bool": "bool",
}


def read_pytorch(path: Path) -> Any:
    """The saved value, with a `Tensor` for each tensor; a tensor's numbers are only read when asked for.

    Raises:
        ValueError: the file is damaged, or holds anything other than tensors, dicts, lists and plain values.
    """
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    if not path.stat().st_size:
        raise ValueError("it is empty")
    # Reading from a mapped file stops at its end; a buffered file would first reserve as much as is asked for.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _read_legacy(mapped, path)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            _check_entries(entries, path)
            pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ValueError("it is a zip archive that torch.save has not written: it holds no data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            byte_order = f"{folder}byteorder"
            if byte_order in entries and archive.read(byte_order) != b"little":
                raise ValueError("its numbers have their highest byte first, which is not read here")

            def find_storage(kind: str, key: str, size: int) -> Storage:
                name = f"{folder}data/{key}"
                if name not in entries:
                    raise ValueError(f"it has no {name}, which a tensor lies in")
                _check_size(size, kind, entries[name].file_size)
                return Storage(kind, size, lambda: _read_entry(path, name, kind))

            return read_pickle(io.BytesIO(archive.read(pickles[0])), NAMES, _storage_loader(find_storage))
    except _DAMAGED as error:
        raise ValueError(f"it is damaged: {error}") from error


# What Python's zipfile raises if an archive is damaged or of an unsupported kind.
_DAMAGED = (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError, OSError)


def _check_entries(entries: dict[str, zipfile.ZipInfo], path: Path) -> None:
    """Refuse compressed entries, which torch never writes, so that no more can come out of a file than is in it."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("its entries are compressed, which torch.save never does")
    claimed = sum(entry.file_size for entry in entries.values())
    if claimed > path.stat().st_size:
        raise ValueError(f"it claims to hold {claimed:,} bytes, and has {path.stat().st_size:,}")


def _read_entry(path: Path, name: str, kind: str) -> Array:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(name), KINDS[kind])
    except _DAMAGED as error:
        raise ValueError(f"it is damaged: {error}") from error


def _read_legacy(file: mmap.mmap, path: Path) -> Any:
    """Read the old format: magic number, version, system information, saved value, storage keys; storages."""
    if read_pickle(file, {}, _no_storage) != LEGACY_MAGIC:
        raise ValueError("it is a pickle that torch.save has not written")
    if read_pickle(file, {}, _no_storage) != LEGACY_PROTOCOL:
        raise ValueError("it was written by another version of torch.save than are known here")
    machine = read_pickle(file, {}, _no_storage)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers have their highest byte first, which is not read here")
    starts: dict[str, int] = {}  # where each storage's numbers begin; filled in further below
    kinds: dict[str, tuple[str, int]] = {}

    def find_storage(kind: str, key: str, size: int) -> Storage:
        if kinds.setdefault(key, (kind, size)) != (kind, size):
            raise ValueError(f"two tensors take storage {key!r} for different ones")
        return Storage(kind, size, lambda: np.fromfile(path, KINDS[kind], size, offset=starts[key]))

    saved = read_pickle(file, NAMES, _storage_loader(find_storage))
    keys = read_pickle(file, {}, _no_storage)
    for key in keys if isinstance(keys, list) else [keys]:
        if not isinstance(key, str) or key not in kinds or key in starts:
            raise ValueError(f"it holds storage {key!r}, which no tensor lies in")
        kind, size = kinds[key]
        header = file.read(8)
        starts[key] = file.tell()
        left = len(file) - starts[key]
        if len(header) < 8 or struct.unpack("<q", header)[0] != size or left < size * _item_size(kind):
            raise ValueError(f"it is damaged or cut off: storage {key!r} does not hold {size:,} numbers")
        file.seek(size * _item_size(kind), os.SEEK_CUR)
    if missing := sorted(set(kinds) - set(starts)):
        raise ValueError(f"it is cut off: storage {missing[0]!r} is missing")
    return saved


def _item_size(kind: str) -> int:
    return np.dtype(KINDS[kind]).itemsize


def _check_size(size: int, kind: str, claimed: int) -> None:
    if size * _item_size(kind) != claimed:
        raise ValueError(f"a storage of {size:,} numbers of {kind} has {claimed:,} bytes")


def _no_storage(identity: tuple[Any, ...]) -> Any:
    raise ValueError("it is damaged")


def _storage_loader(find: Callable[[str, str, int], Storage]) -> Callable[[tuple[Any, ...]], Storage]:
    """A function of torch's persistent ids: ("storage", type, key, device, size), in the old format also a view."""

    def load(identity: tuple[Any, ...]) -> Storage:
        what, kind, key, _, size, *view = identity
        known = what == "storage" and isinstance(kind, _StorageKind)
        if (
            not known
            or not isinstance(key, str)
            or not isinstance(size, int)
            or size < 0
            or view not in ([], [None])
        ):
            raise ValueError("it holds a tensor of a kind that is not read here")
        return find(kind.kind, key, size)

    return load


class _StorageKind:
    """Stands for torch.FloatStorage and similar classes; can't be called."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Stands for the function with which torch makes a tensor; the remaining arguments are about gradients."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, Storage) or not all(type(number) is int for number in numbers):
        raise ValueError("it is damaged")
    return storage.window(offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_dict(pairs: Any = ()) -> dict[str, Any]:
    """Stands for `OrderedDict`: empty, or from pairs as Python 2 writes it."""
    if not all(isinstance(key, str | int) for key, _ in pairs):
        raise ValueError("it is damaged")
    return dict(pairs)


def _leave_unread(*_: Any) -> None:
    """Stands for values beside the weights that are not needed, such as the best score as a numpy number."""


NAMES: dict[str, Any] = {
    "collections.OrderedDict": _rebuild_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _leave_unread,
    "torch.device": _leave_unread,
    "numpy.dtype": _leave_unread,
    "numpy.core.multiarray.scalar": _leave_unread,
    "numpy._core.multiarray.scalar": _leave_unread,
    "_codecs.encode": _leave_unread,
    **{
        f"{module}.{name}Storage": _StorageKind(kind)
        for module in ("torch", "torch.cuda")
        for name, kind in STORAGES.items()
    },
}
