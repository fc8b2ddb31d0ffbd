"""Build a prepared set from a raw set, or resume a build that was stopped.

First, a reader's samples are written, without their pixels, into one file for each shard. Then processes build the
shards independently: read a picture, decode it, write its record. So memory holds one sample per process, however
many pictures there are, and a build that was stopped anywhere keeps the shards that it had finished.

An existing set stays complete until the manifest of its replacement is written: a new shard whose name is in use gets
another name.
"""

import contextlib
import dataclasses
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipelines import records
from pipelines.building.processes import BYTES_A_PROCESS, count_cores, run_tasks
from pipelines.building.progress import progress_bar
from pipelines.building.shards import WORK_FOLDER, BuiltShard, OnBadImage, ShardTask, check_handling
from pipelines.building.spool import lay_out
from pipelines.files import locked, remove_partial
from pipelines.manifest import MANIFEST, Manifest, Shard, Split, load_manifest, write_manifest
from pipelines.pictures import MAX_MEGAPIXELS
from pipelines.samples import RawSet, Skip, check_class_names


def build_set(
    raw: RawSet,
    data_dir: Path | str,
    *,
    processes: int | None = None,
    on_bad_image: OnBadImage = "skip",
    max_megapixels: float = MAX_MEGAPIXELS,
    overwrite: bool = False,
) -> Manifest:
    """Write the prepared set `<data_dir>/<raw.name>`, or resume a build of it that was stopped.

    The result is the same to the byte, whatever the number of processes and however often the build was stopped. The
    manifest is written last: without it, a folder is not a prepared set.

    Args:
        raw: what a reader returned.
        data_dir: where prepared sets lie.
        processes: how many read and decode at once; by default one per core, fewer for small sets.
        on_bad_image: leave out a picture that does not decode and name it in the manifest, or stop.
        max_megapixels: larger pictures count as bad.
        overwrite: build a complete set anew, instead of refusing to; it stays until the new one is complete.

    Raises:
        FileExistsError: the set is complete.
        ValueError: a class, an id or a label is not valid, a picture is bad and `on_bad_image` is `stop`, or no
            picture is left.
        OSError: a file cannot be read or written.
    """
    check_handling(on_bad_image, max_megapixels)
    check_class_names(raw.classes)
    if processes is not None and processes < 1:
        raise ValueError(f"`processes` must be at least 1. Received: {processes}")
    folder = Path(data_dir) / raw.name
    with only_build_in(folder, overwrite) as in_use:
        work = folder / WORK_FOLDER
        layout = lay_out(raw, work)
        encoded_bytes = sum(plan.encoded_bytes for plan in layout.values())
        _refuse_if_short_of_space(folder, encoded_bytes, in_use)
        tasks = [
            ShardTask(
                shard_path(folder, split, shard, plan.num_shards, in_use),
                *(split, shard, plan.num_shards, len(raw.classes), on_bad_image, max_megapixels),
            )
            for split, plan in layout.items()
            for shard in range(plan.num_shards)
        ]
        if processes is None:
            processes = min(count_cores(), 1 + encoded_bytes // BYTES_A_PROCESS)
        with progress_bar(raw.name, total=sum(plan.examples for plan in layout.values())) as bar:
            built = run_tasks(tasks, min(processes, len(tasks)), bar.update)
            try:
                manifest = complete_set(raw, folder, built)
            except BaseException:
                built.close()  # ends the other processes
                remove_partial(folder)  # what they were writing
                raise
        shutil.rmtree(work, ignore_errors=True)  # while the folder is still locked; leftovers do no harm
    return manifest


def refuse_complete(folder: Path) -> None:
    """Raise an error if the set has already been built."""
    if (folder / MANIFEST).exists():
        _remove_leftovers(folder)
        raise FileExistsError(
            f"The prepared set {folder} is there and complete. --verify reads it through, --overwrite builds it anew."
        )


@contextlib.contextmanager
def only_build_in(folder: Path, overwrite: bool) -> Iterator[frozenset[str]]:
    """Make sure that a set can be built in a folder, by this process alone while the `with` block runs.

    Yields:
        The names of the shards of the existing set, which must not be touched.
    """
    if not overwrite:
        refuse_complete(folder)
    work = folder / WORK_FOLDER
    work.mkdir(mode=0o755, parents=True, exist_ok=True)
    _refuse_foreign(work)
    with _locked(work):
        remove_partial(folder)
        yield frozenset(_shards_in_use(folder))


def shard_path(folder: Path, split: str, shard: int, num_shards: int, in_use: frozenset[str]) -> Path:
    """Where a shard is built: under its usual name, or under its other one if the existing set uses that."""
    name = records.shard_name(split, shard, num_shards)
    return folder / (_other_name(name) if name in in_use else name)


def complete_set(raw: RawSet, folder: Path, built: Iterable[tuple[ShardTask, BuiltShard]]) -> Manifest:
    """Wait for shards to be finished, in any order, and write the manifest.

    `raw`'s samples must have been iterated.
    """
    tallies = {split: _Tally(len(raw.classes)) for split in raw.splits}
    for task, shard in built:
        tallies[task.split].add(task.shard, shard)
    in_use = _shards_in_use(folder)
    for tally in tallies.values():
        tally.shards = {number: _settle(folder, shard, in_use) for number, shard in tally.shards.items()}
    manifest = _assemble_manifest(raw, folder, tallies)
    write_manifest(folder, manifest)
    _remove_unused_shards(folder)
    return manifest


class _Tally:
    """What the manifest will say of a split, summed up over its shards as they come."""

    def __init__(self, num_classes: int) -> None:
        self.counts = {kind: np.zeros(num_classes, np.int64) for kind in ("present", "difficult", "unknown")}
        self.shards: dict[int, Shard] = {}
        self.skipped: dict[int, tuple[Skip, ...]] = {}
        self.remarks: Counter[str] = Counter()

    def add(self, number: int, built: BuiltShard) -> None:
        for kind, count in self.counts.items():
            count += np.array(getattr(built, kind))
        self.shards[number] = built.shard
        self.skipped[number] = built.skipped
        self.remarks.update(built.remarks)


def _assemble_manifest(raw: RawSet, folder: Path, tallies: dict[str, _Tally]) -> Manifest:
    splits = {}
    for name, tally in tallies.items():
        skipped = [*raw.skipped.get(name, [])]
        skipped += [skip for number in sorted(tally.skipped) for skip in tally.skipped[number]]
        shards = [tally.shards[number] for number in sorted(tally.shards)]
        examples = sum(shard.examples for shard in shards)
        if not examples:
            why = f": {skipped[0].id} {skipped[0].why}" if skipped else ""
            raise ValueError(f"The split {name} of {raw.name} holds no usable picture ({raw.source}){why}.")
        present, difficult, unknown = (tuple(count.tolist()) for count in tally.counts.values())
        splits[name] = Split(
            *(folder, examples, present, difficult, unknown, tuple(shards), tuple(skipped)),
            remarks=dict(sorted(tally.remarks.items())),
        )
    return Manifest(raw.name, raw.classes, raw.source, raw.licence, splits, raw.grouped_by)


def _shards_in_use(folder: Path) -> dict[str, str]:
    """Name -> checksum of the existing set's shards; empty if its manifest can't be read."""
    try:
        manifest = load_manifest(folder.parent, folder.name, check_files=False)
    except (FileNotFoundError, ValueError):
        return {}
    return {shard.name: shard.sha256 for split in manifest.splits.values() for shard in split.shards}


def _other_name(name: str) -> str:
    """The other one of a shard's two names, of which the existing set uses at most one."""
    stem = name.removesuffix(".tfrecord")
    return f"{stem.removesuffix('-b')}.tfrecord" if stem.endswith("-b") else f"{stem}-b.tfrecord"


def _settle(folder: Path, shard: Shard, in_use: dict[str, str]) -> Shard:
    """If a new shard equals the existing one, give it that one's place and name; readers see no difference."""
    other = _other_name(shard.name)
    if in_use.get(other) != shard.sha256:
        return shard
    (folder / shard.name).replace(folder / other)
    note = folder / WORK_FOLDER / f"{shard.name}.json"
    note.replace(note.with_name(f"{other}.json"))
    return dataclasses.replace(shard, name=other)


def _remove_unused_shards(folder: Path) -> None:
    in_use = _shards_in_use(folder)
    for file in folder.glob("*.tfrecord"):
        if file.name not in in_use:
            file.unlink()


def _remove_leftovers(folder: Path) -> None:
    """Clean up after a build that was killed after it had written its manifest."""
    work = folder / WORK_FOLDER
    if any((work / f"{name}.json").is_file() for name in _shards_in_use(folder)):
        with contextlib.suppress(FileExistsError), _locked(work):
            _remove_unused_shards(folder)
            shutil.rmtree(work, ignore_errors=True)


def _locked(work: Path) -> contextlib.AbstractContextManager[None]:
    return locked(work / "lock", f"Another process is building {work.parent} at this moment. Wait for it.")


def _refuse_foreign(work: Path) -> None:
    """Refuse a work folder that somebody else has made, or in which somebody placed a link."""
    with tempfile.TemporaryFile(dir=work) as file:
        ours = os.fstat(file.fileno()).st_uid  # our user id on this disk
    for path in (work, *work.iterdir()):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or status.st_uid != ours:
            what = "is a link" if stat.S_ISLNK(status.st_mode) else "belongs to another user"
            raise FileExistsError(
                f"{path}, of an unfinished build, {what}. If nobody is building there, remove {work} and start again."
            )


def _refuse_if_short_of_space(folder: Path, encoded_bytes: int, in_use: frozenset[str]) -> None:
    there = sum(file.stat().st_size for file in folder.glob("*.tfrecord") if file.name not in in_use)
    free = shutil.disk_usage(folder).free
    if encoded_bytes > there + free:
        raise ValueError(
            f"The records need {(encoded_bytes - there) / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free."
            " Free some space or choose another --data-dir."
        )
