"""Writes and reads `predictions.npz` block by block, and checks what it reads. Loads no TensorFlow."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mcar_tf.evaluating.columns import STREAMS
from mcar_tf.evaluating.predictions import BLOCK, Flags, FusedProbs, Predictions
from pipelines.files import written_whole

Array = npt.NDArray[Any]

# Name of an array in the file -> its shape, in letters, and the kinds of numbers that it may hold.
ARRAYS = {
    "classes": ("C", "U"),
    "split": ("", "U"),
    "data": ("", "U"),
    "ids": ("N", "U"),
    "labels": ("NC", "bf"),
    "weights": ("NC", "bf"),
    "global_probs": ("NC", "f"),
    "local_probs": ("NC", "f"),
    "probs": ("NC", "f"),
    "boxes": ("NR4", "f"),
    "box_classes": ("NR", "i"),
    "box_probs": ("NR", "f"),
}
# What Python's `zipfile` raises for a damaged file; an OSError if the file points to an impossible position.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
MOST_PAIRS = 2**33  # largest number of pairs of image and class: 100 GB


class SplitPredictions(NamedTuple):
    """The content of a `predictions.npz`.

    Attributes:
        predictions: of the split's pictures.
        classes: C names.
        split: its name.
        data: the prepared set's `content_hash`; "" in a file from before it was noted.
    """

    predictions: Predictions
    classes: tuple[str, ...]
    split: str
    data: str


def write_predictions(
    path: Path, predictions: Predictions, classes: Sequence[str], split: str, data: str = ""
) -> None:
    """Write `predictions.npz`, whole or not at all: the arrays of `ARRAYS`, for `np.load` and `read_predictions`.

    Args:
        path: the file.
        predictions: of the split's pictures.
        classes: C names.
        split: its name.
        data: the prepared set's `content_hash`.
    """
    shape = len(predictions), predictions.num_classes

    def blocks(name: str) -> Iterator[Array]:
        for rows in predictions.row_blocks():
            if name in ("labels", "weights"):
                yield predictions.truth(rows)[name == "weights"]
            else:
                yield predictions.stream(next(s for s, field in STREAMS.items() if field == name), rows)

    small = {"classes": np.array(classes), "split": np.array(split), "data": np.array(data)}
    with (
        written_whole(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        for name, (letters, kinds) in ARRAYS.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as array:
                if letters != "NC":
                    values = small[name] if name in small else getattr(predictions, name)
                    np.lib.format.write_array(array, np.asarray(values, order="C"), allow_pickle=False)
                    continue
                header = {"descr": "|b1" if "b" in kinds else "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(array, header)
                for block in blocks(name):
                    array.write(block.tobytes())


def read_predictions(path: Path) -> SplitPredictions:
    """Read what `write_predictions` wrote.

    Raises:
        ValueError: the file holds anything else, even a number that no model gives; names the file and the array.
    """
    with path.open("rb") as content:
        try:
            with zipfile.ZipFile(content) as file:
                return _read(file)
        except (*DAMAGED, ValueError) as error:
            raise ValueError(
                f"{path} is not what evaluate writes: {' '.join(str(error).split())[:200]}. Evaluate the run again."
            ) from error


def _read(file: zipfile.ZipFile) -> SplitPredictions:
    sizes: dict[str, int] = {"4": 4}
    found: dict[str, Any] = {}
    for name, (letters, kinds) in ARRAYS.items():
        if name == "data" and "data.npy" not in file.namelist():
            continue
        with _Array(file, name) as array:
            array.check(letters, kinds, sizes)
            if sizes.get("N", 0) * sizes.get("C", 0) > MOST_PAIRS:
                raise ValueError(f"{sizes['N']} images of {sizes['C']} classes are more than can be read")
            if not sizes.get("N", 1):
                raise ValueError("it holds no images")
            if name in ("labels", "weights"):
                flags = [np.packbits(block > 0, axis=1) for _, block in array.blocks()]
                found[name] = Flags(np.concatenate(flags), sizes["C"])
            elif name == "probs":
                fused = FusedProbs(found["global_probs"], found["local_probs"])
                for rows, block in array.blocks():
                    fused.put(rows, _fractions(name, block))
                found[name] = fused.kept
            else:
                found[name] = array.read()
                if "f" in kinds:
                    _fractions(name, found[name])
    if not ((found["box_classes"] >= 0) & (found["box_classes"] < sizes["C"])).all():
        raise ValueError("`box_classes` holds what is none of the classes")
    classes = tuple(map(str, found.pop("classes")))
    split, data = (str(found.pop(name)[()]) if name in found else "" for name in ("split", "data"))
    return SplitPredictions(Predictions(**found), classes, split, data)


def _fractions(name: str, values: Array) -> Array:
    # Sums of products of fractions, such as a box's sides, may be off by a rounding error.
    if not (values.size == 0 or -1e-5 <= values.min() <= values.max() <= 1 + 1e-5):  # refuses NaN, too
        raise ValueError(f"`{name}` holds numbers that do not lie in [0, 1]")
    return values


class _Array:
    """An array in the file; its shape and type are read first, so that they can be checked before its content."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        self.name = name
        if f"{name}.npy" not in file.namelist():
            raise ValueError(f"it holds no array `{name}`")
        self.file = file.open(f"{name}.npy")
        self.size = file.getinfo(f"{name}.npy").file_size

    def __enter__(self) -> "_Array":
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(self.file)
        if version not in read:
            raise ValueError(f"`{self.name}` is of an unknown version of numpy's format")
        self.shape, self.by_columns, self.dtype = read[version](self.file)
        self.lines = (self.shape or (1,))[0], math.prod(self.shape[1:])
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def check(self, letters: str, kinds: str, sizes: dict[str, int]) -> None:
        """Check that the shape fits those of earlier arrays, and that type and size are as they should be."""
        expected = tuple(sizes.setdefault(letter, n) for letter, n in zip(letters, self.shape, strict=False))
        content = math.prod(self.shape) * self.dtype.itemsize
        if self.shape != expected or len(letters) != len(self.shape) or self.dtype.kind not in kinds:
            raise ValueError(f"`{self.name}` is {self.dtype} {self.shape}, which does not fit the others")
        if self.by_columns or self.dtype.hasobject or not content <= self.size <= content + 2**16:
            raise ValueError(f"`{self.name}` is not as long as it says")

    def read(self) -> Array:
        """The whole array."""
        values = np.empty(self.shape, self.dtype)
        for rows, block in self.blocks():
            values.reshape(self.lines)[rows] = block
        return values

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Blocks of rows, each row flattened to one line of numbers, with the slice of rows that each one holds."""
        rows, columns = self.lines
        step = max(1, BLOCK // max(1, columns))
        for start in range(0, rows, step):
            shape = min(step, rows - start), columns
            content = self.file.read(math.prod(shape) * self.dtype.itemsize)
            yield slice(start, start + step), np.frombuffer(content, self.dtype).reshape(shape)
