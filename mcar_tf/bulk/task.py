"""What a worker must know to predict a shard, and how many pictures a finished shard has. Loads no TensorFlow."""

import dataclasses
import re
from pathlib import Path

from mcar_tf.bulk.listing import LISTS
from mcar_tf.evaluating.answer_files import AnswerFormat
from pipelines.reading import read_json_object

_NAME = re.compile(r"(predictions|unreadable)-\d{5,}-of-\d{5,}\.(jsonl|parquet)")


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """How the shards of a bulk prediction are written.

    Attributes:
        folder: the output folder.
        shards: number of shards.
        of_records: whether the lists name shards of a prepared set instead of pictures.
        format: of the files.
        all_classes: whether classes below their threshold are listed too.
        threshold: the probability at which a class becomes a label; None: each class's own, as exported.
        batch_size: pictures that the model looks at together.
        image_size: side in px that the model resizes pictures to.
    """

    folder: Path
    shards: int
    of_records: bool
    format: AnswerFormat
    all_classes: bool
    threshold: float | None
    batch_size: int
    image_size: int

    def path(self, shard: int, what: str = "predictions") -> Path:
        """The file of a shard's `predictions`, or of its `unreadable` pictures."""
        return self.folder / f"{what}-{shard:05d}-of-{self.shards:05d}.{self.format}"

    def note(self, shard: int) -> Path:
        """The file that is written last, with the shard's counts."""
        return self.folder / LISTS / f"{shard:05d}.done.json"


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many pictures of a shard could be read, and how many not."""

    readable: int = 0
    unreadable: int = 0


def read_counts(task: ShardTask, shard: int) -> Counts | None:
    """The counts of a finished shard; None if it is not finished."""
    note = task.note(shard)
    if not note.is_file() or not task.path(shard).is_file():
        return None
    counts = read_json_object(note)
    return Counts(int(counts["readable"]), int(counts["unreadable"]))


def find_shards(folder: Path) -> list[Path]:
    """The files of all shards in an output folder, whatever their number and format."""
    return [file for file in folder.iterdir() if _NAME.fullmatch(file.name)]
