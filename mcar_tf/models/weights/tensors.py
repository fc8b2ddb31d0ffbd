"""A tensor in a file: its shape and type are known at once, its values are only read when asked for."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# The types of numbers that files hold, all little-endian.
FLOATS = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": ml_dtypes.bfloat16}
KINDS: dict[str, npt.DTypeLike] = FLOATS | {
    "int8": "i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "uint8": "u1",
    "bool": "?",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        kind: the type of its numbers: a key of `KINDS`, or the file's own name for it.
        shape: the shape given in the file.
        read: reads its values.
    """

    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Array]

    def to_float32(self) -> Array:
        """The values as float32.

        Raises:
            ValueError: they are not floating-point numbers, or some are not finite.
        """
        if self.kind not in FLOATS:
            raise ValueError(f"holds {self.kind} in place of floating-point numbers")
        with np.errstate(over="ignore"):
            values = self.read().astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinity")
        return values


Tensors = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Storage:
    """A contiguous run of numbers in a file; tensors are windows on it.

    Attributes:
        kind: the type of its numbers, a key of `KINDS`.
        size: how many numbers there are.
        read: reads all of them.
    """

    kind: str
    size: int
    read: Callable[[], Array]

    def window(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """The tensor that begins at number `offset` of the storage and has these strides, counted in numbers.

        Raises:
            ValueError: the tensor would reach beyond the storage, or hold more numbers than it.
        """
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise ValueError(f"a tensor of shape {shape}, strides {strides} and offset {offset} can't be")
        size = math.prod(shape)
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        # With strides of zero, a few numbers could pass for a tensor of any size.
        if size and (last >= self.size or size > self.size):
            raise ValueError(
                f"a tensor of shape {shape} claims {size:,} numbers where its storage holds {self.size:,}"
            )

        def read() -> Array:
            whole = self.read()
            in_bytes = [stride * whole.itemsize for stride in strides]
            start = whole[offset:] if size else whole[:0]
            return np.lib.stride_tricks.as_strided(start, shape, in_bytes, writeable=False)

        return Tensor(self.kind, shape, read)
