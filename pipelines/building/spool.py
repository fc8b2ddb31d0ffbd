"""A raw set in, one file of samples for each shard to be built out: so memory never holds more than a few of them."""

import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines import records
from pipelines.building.progress import progress_bar
from pipelines.building.shards import StampedSample, check_sample, encoded_size, stamp
from pipelines.samples import RawSet

SPOOL_BYTES = 64 * 2**20  # of samples in memory, before they are laid into their shards' files


class Plan(NamedTuple):
    """Of one split."""

    examples: int
    encoded_bytes: int
    num_shards: int


def lay_out(raw: RawSet, work: Path) -> dict[str, Plan]:
    """Go through the reader once; leave the samples of each shard in a file of `work`."""
    for old in work.glob("*.samples"):
        old.unlink()
    layout = {}
    with progress_bar(f"{raw.name}: listing") as bar:
        for split, iterate in raw.splits.items():
            everything = work / f"{split}.samples"
            examples = encoded = 0
            with everything.open("wb") as file:
                for sample in iterate():
                    check_sample(sample, split, len(raw.classes))
                    examples, encoded = examples + 1, encoded + encoded_size(sample)
                    pickle.dump(StampedSample(sample, stamp(sample)), file)
                    bar.update()
            num_shards = records.count_shards(encoded)
            _distribute(everything, work, split, num_shards)
            everything.unlink()
            layout[split] = Plan(examples, encoded, num_shards)
    return layout


def _distribute(everything: Path, work: Path, split: str, num_shards: int) -> None:
    """Sort a file of samples into one file a shard, through a buffer of `SPOOL_BYTES`."""
    pending: dict[int, list[bytes]] = defaultdict(list)
    size = 0

    def flush() -> None:
        for shard, blobs in pending.items():
            with spool_file(work, split, shard, num_shards).open("ab") as file:
                file.writelines(blobs)
        pending.clear()

    for shard in range(num_shards):
        spool_file(work, split, shard, num_shards).touch()
    for item in read_spool(everything):
        blob = pickle.dumps(item)
        pending[records.shard_of(item.sample.id, num_shards)].append(blob)
        size += len(blob)
        if size > SPOOL_BYTES:
            flush()
            size = 0
    flush()


def spool_file(work: Path, split: str, shard: int, num_shards: int) -> Path:
    return work / f"{records.shard_name(split, shard, num_shards)}.samples"


def read_spool(path: Path) -> Iterator[StampedSample]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return
