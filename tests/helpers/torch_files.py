"""Values in, the files out that `torch.save` makes of them, without torch: each instruction of a pickle by hand."""

import collections
import struct
import zipfile

import numpy as np

STORAGES = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte"}


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def many(parts):
    return b"(" + b"".join(parts) + b"t"


def storage(kind, key, size, old=False):
    parts = [text("storage"), name("torch", f"{kind}Storage"), text(key), text("cuda:0"), number(size)]
    return many([*parts, b"N"] if old else parts) + b"Q"


def tensor(kind, key, size, shape, strides, offset=0, old=False):
    """A tensor on a storage of `size` numbers."""
    numbers = [number(offset), many(map(number, shape)), many(map(number, strides))]
    hooks = [b"\x89", name("collections", "OrderedDict") + b")R"]
    arguments = many([storage(kind, key, size, old), *numbers, *hooks])
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


class Pickled(bytes):
    """A value that is instructions already."""


def encode(value, storages, old=False):
    """The instructions that make a value; arrays are put into `storages`, one each."""
    if isinstance(value, Pickled):
        return bytes(value)
    if isinstance(value, np.ndarray):
        key = str(len(storages))
        storages[key] = np.ascontiguousarray(value)
        strides = [int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim)]
        kind = STORAGES[value.dtype.str[1:]]
        return tensor(kind, key, value.size, value.shape, strides, old=old)
    if isinstance(value, dict):
        start = (
            name("collections", "OrderedDict") + b")R" if isinstance(value, collections.OrderedDict) else b"}"
        )
        pairs = [encode(part, storages, old) for pair in value.items() for part in pair]
        return start + b"(" + b"".join(pairs) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(encode(part, storages, old) for part in value) + b"e"
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    return text(value) if isinstance(value, str) else number(value)


def write_zip(path, value, compress=False, **entries):
    """Since torch 1.6: an archive. `entries` replace those of these names, such as `data__0` for data/0."""
    storages = {}
    content = {"data.pkl": b"\x80\x02" + encode(value, storages) + b".", "version": b"3\n"}
    content |= {f"data/{key}": array.tobytes() for key, array in storages.items()}
    content |= {key.replace("__", "/"): part for key, part in entries.items()}
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for entry, part in content.items():
            archive.writestr(f"archive/{entry}", part)
    return path


def write_legacy(path, value):
    """Before torch 1.6: pickles one after the other, then each storage with its size before it."""
    storages = {}
    saved = encode(value, storages, old=True)
    system = {"protocol_version": 1001, "little_endian": Pickled(b"\x88")}
    pickles = [number(0x1950A86A20F9469CFC6C), number(1001), encode(system, {}), saved]
    pickles.append(encode(list(storages), {}))
    numbers = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    path.write_bytes(b"".join(b"\x80\x02" + part + b"." for part in pickles) + b"".join(numbers))
    return path
