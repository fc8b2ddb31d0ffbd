"""Pack samples into lines of text, which travel between processes and machines on their way to their shards.

A packed sample is a line, followed by the picture's bytes if the picture has no file:

    <id> TAB <bytes of the picture> TAB <bytes that follow the line> TAB <JSON of the rest> LF
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipelines.samples import Sample

VALID_ID = re.compile(r"[A-Za-z0-9_./-]+")


def check_sample(sample: Sample, split: str, num_classes: int) -> None:
    """Refuse an id or a label that a record cannot hold."""
    if not VALID_ID.fullmatch(sample.id):
        raise ValueError(f"The id {sample.id!r} in {split} has characters other than A-Z a-z 0-9 _ . / -")
    for label in (*sample.present, *sample.difficult, *sample.unknown, *sample.box_labels):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"The picture {sample.id} in {split} has class {label}; there are {num_classes}."
            )


class Packed(NamedTuple):
    """A packed sample.

    Attributes:
        line: see above. It also tells whether the picture is still the one that was listed, by the file's size and
            time of change, or without a file by a hash of the bytes.
        inline: the picture's bytes, where it has no file.
    """

    line: bytes
    inline: bytes

    @property
    def id(self) -> str:
        return self.line.split(b"\t", 1)[0].decode()

    @property
    def encoded_bytes(self) -> int:
        """Size of the picture; the sum over a split decides its number of shards."""
        return int(self.line.split(b"\t", 2)[1])

    def sample(self) -> Sample:
        """The sample that was packed."""
        fields: dict[str, Any] = json.loads(self.line.split(b"\t", 3)[3])
        file = fields.pop("file")
        del fields["stamp"]
        fields = {name: value if value is None else tuple(value) for name, value in fields.items()}
        fields["boxes"] = tuple(map(tuple, fields["boxes"]))
        return Sample(id=self.id, image=self.inline if file is None else Path(file), **fields)


def pack(sample: Sample) -> Packed:
    """Pack a sample, see `Packed`. It must have passed `check_sample`, and its file must be there."""
    fields = {
        field.name: getattr(sample, field.name)
        for field in dataclasses.fields(sample)
        if field.name not in ("id", "image")
    }
    if isinstance(sample.image, bytes):
        inline, size = sample.image, len(sample.image)
        fields |= {"file": None, "stamp": hashlib.sha256(inline).hexdigest()}
    else:
        status = sample.image.stat()
        inline, size = b"", status.st_size
        fields |= {"file": str(sample.image), "stamp": status.st_mtime_ns}
    # ASCII, because a file's name may not be valid text. `default`, because a reader may give numbers of numpy.
    rest = json.dumps(fields, separators=(",", ":"), ensure_ascii=True, default=lambda number: number.item())
    return Packed(f"{sample.id}\t{size}\t{len(inline)}\t{rest}\n".encode("ascii"), inline)


def read_packed(file: BinaryIO) -> Iterator[Packed]:
    """The packed samples from the present position of an open file to its end."""
    while line := file.readline():
        yield _with_inline(line, file)


def read_packed_at(file: BinaryIO, place: int) -> Packed:
    """The packed sample at a position in an open file."""
    file.seek(place)
    return _with_inline(file.readline(), file)


def _with_inline(line: bytes, file: BinaryIO) -> Packed:
    return Packed(line, file.read(int(line.split(b"\t", 3)[2])))
