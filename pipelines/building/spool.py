"""Write a raw set's packed samples into one file for each shard to be built, so that memory holds only a few."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines import records
from pipelines.building.packing import Packed, check_sample, pack, read_packed, read_packed_at
from pipelines.building.progress import progress_bar
from pipelines.files import no_follow
from pipelines.samples import RawSet

SPOOL_BYTES = 64 * 2**20  # of samples in memory, before they are written into their shards' files


class Plan(NamedTuple):
    """What is to be built of one split."""

    examples: int
    encoded_bytes: int
    num_shards: int


def lay_out(raw: RawSet, work: Path) -> dict[str, Plan]:
    """Go through the reader once, and write the samples of each shard into a file in `work`."""
    for old in work.glob("*.samples"):
        old.unlink()
    layout = {}
    with progress_bar(f"{raw.name}: listing") as bar:
        for split, iterate in raw.splits.items():
            everything = work / f"{split}.samples"
            examples = encoded = 0
            with open(everything, "xb", opener=no_follow) as file:
                for sample in iterate():
                    check_sample(sample, split, len(raw.classes))
                    packed = pack(sample)
                    examples, encoded = examples + 1, encoded + packed.encoded_bytes
                    file.writelines(packed)
                    bar.update()
            num_shards = records.count_shards(encoded)
            _distribute(everything, work, split, num_shards)
            everything.unlink()
            layout[split] = Plan(examples, encoded, num_shards)
    return layout


def spool_file(work: Path, split: str, shard: int, num_shards: int) -> Path:
    """Where the samples of a shard lie."""
    return work / f"{records.shard_name(split, shard, num_shards)}.samples"


def read_in_order(path: Path) -> Iterator[Packed]:
    """The samples of a shard's file, sorted by `records.sort_key`; memory holds only their places and one sample."""
    places = []
    with open(path, "rb", opener=no_follow) as file:
        place = 0
        for packed in read_packed(file):
            places.append((records.sort_key(packed.id), packed.id, place))
            place = file.tell()
        for _, _, place in sorted(places):
            yield read_packed_at(file, place)


def _distribute(everything: Path, work: Path, split: str, num_shards: int) -> None:
    """Sort a file of samples into one file per shard, through a buffer of `SPOOL_BYTES`."""
    pending: dict[int, list[bytes]] = defaultdict(list)
    size = 0

    def flush() -> None:
        for shard, blobs in pending.items():
            with open(spool_file(work, split, shard, num_shards), "ab", opener=no_follow) as file:
                file.writelines(blobs)
        pending.clear()

    for shard in range(num_shards):
        open(spool_file(work, split, shard, num_shards), "xb", opener=no_follow).close()
    with open(everything, "rb", opener=no_follow) as file:
        for packed in read_packed(file):
            pending[records.shard_of(packed.id, num_shards)] += packed
            size += sum(map(len, packed))
            if size > SPOOL_BYTES:
                flush()
                size = 0
    flush()
