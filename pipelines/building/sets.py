"""A raw set in, a prepared set out, or going on with one whose build was stopped.

A reader's samples are laid, without their pixels, into one file for each shard; then processes make the shards
independently: read a picture, decode it, write its record. So memory holds the labels of one shard a process, however
many pictures there are, and a build that was stopped anywhere goes on with the shards that it had finished.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.building.processes import BYTES_A_PROCESS, count_cores, run_tasks
from pipelines.building.progress import progress_bar
from pipelines.building.shards import WORK_FOLDER, BuiltShard, OnBadImage, ShardTask, check_handling
from pipelines.building.spool import lay_out
from pipelines.files import locked, remove_partial
from pipelines.manifest import MANIFEST, Manifest, Split, write_manifest
from pipelines.pictures import MAX_MEGAPIXELS
from pipelines.samples import RawSet


def build_set(
    raw: RawSet,
    data_dir: Path | str,
    *,
    processes: int | None = None,
    on_bad_image: OnBadImage = "skip",
    max_megapixels: float = MAX_MEGAPIXELS,
    overwrite: bool = False,
) -> Manifest:
    """Write the prepared set `<data_dir>/<raw.name>`, or go on with a build of it that was stopped.

    What comes out is the same to the byte, whatever the number of processes and however often it was stopped. The
    manifest comes last: a folder without it is no set.

    Args:
        raw: what a reader returned.
        data_dir: where prepared sets lie.
        processes: how many read and decode at once; by default one a core, fewer for small sets.
        on_bad_image: leave out a picture that does not decode and name it in the manifest, or stop.
        max_megapixels: larger pictures count as bad.
        overwrite: build a complete set anew, instead of refusing to.

    Raises:
        FileExistsError: the set is complete.
        ValueError: an id or a label is not valid, a picture is bad and the build was to stop, nothing is left.
        OSError: a file cannot be read or written.
    """
    check_handling(on_bad_image, max_megapixels)
    if processes is not None and processes < 1:
        raise ValueError(f"`processes` must be at least 1. Received: {processes}")
    folder = Path(data_dir) / raw.name
    if not overwrite:
        refuse_complete(folder)
    work = folder / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    with only_build_in(work):
        begin_anew(folder)
        layout = lay_out(raw, work)
        _refuse_if_short_of_space(folder, sum(split.encoded_bytes for split in layout.values()))
        tasks = [
            ShardTask(folder, split, shard, plan.num_shards, len(raw.classes), on_bad_image, max_megapixels)
            for split, plan in layout.items()
            for shard in range(plan.num_shards)
        ]
        if processes is None:
            encoded = sum(split.encoded_bytes for split in layout.values())
            processes = min(count_cores(), 1 + encoded // BYTES_A_PROCESS)
        with progress_bar(raw.name, total=sum(split.examples for split in layout.values())) as bar:
            try:
                built = run_tasks(tasks, min(processes, len(tasks)), bar)
            except BaseException:
                remove_partial(folder)  # another process was ended amid its shard
                raise
        by_split: dict[str, list[BuiltShard]] = {split: [] for split in layout}
        for task, shard in zip(tasks, built, strict=True):
            by_split[task.split].append(shard)
        manifest = complete_set(raw, folder, by_split)
        shutil.rmtree(work, ignore_errors=True)  # while nobody else builds; what may be left does no harm
    return manifest


def refuse_complete(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        shutil.rmtree(
            folder / WORK_FOLDER, ignore_errors=True
        )  # of a build that was killed in its last moment
        raise FileExistsError(
            f"The prepared set {folder} is there and complete. --verify reads it through, --overwrite builds it anew."
        )


@contextmanager
def only_build_in(work: Path) -> Iterator[None]:
    """Two builds of one set at the same time would undo each other's work."""
    with locked(work / "lock", f"Another process is building {work.parent} at this moment. Wait for it."):
        yield


def begin_anew(folder: Path) -> None:
    """From here on there is no set, until its manifest is written."""
    (folder / MANIFEST).unlink(missing_ok=True)
    remove_partial(folder)


def _refuse_if_short_of_space(folder: Path, encoded_bytes: int) -> None:
    there = sum(file.stat().st_size for file in folder.glob("*.tfrecord"))
    free = shutil.disk_usage(folder).free
    if encoded_bytes > there + free:
        raise ValueError(
            f"The records need {(encoded_bytes - there) / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free."
            " Free some space or choose another --data-dir."
        )


def complete_set(raw: RawSet, folder: Path, built: dict[str, list[BuiltShard]]) -> Manifest:
    """Write the manifest of finished shards, in order; `raw`'s samples must have been iterated."""
    manifest = _assemble_manifest(raw, folder, built)
    keep = {file for split in manifest.splits.values() for file in split.files}
    for file in folder.glob("*.tfrecord"):
        if file not in keep:
            file.unlink()
    write_manifest(folder, manifest)
    return manifest


def _assemble_manifest(raw: RawSet, folder: Path, built: dict[str, list[BuiltShard]]) -> Manifest:
    splits = {}
    for name, shards in built.items():
        skipped = [*raw.skipped.get(name, []), *(skip for shard in shards for skip in shard.skipped)]
        examples = sum(shard.shard.examples for shard in shards)
        if not examples:
            why = f": {skipped[0].id} {skipped[0].why}" if skipped else ""
            raise ValueError(f"The split {name} of {raw.name} holds no usable picture ({raw.source}){why}.")
        present, difficult, unknown = (
            tuple(sum(counts) for counts in zip(*(getattr(shard, kind) for shard in shards), strict=True))
            for kind in ("present", "difficult", "unknown")
        )
        splits[name] = Split(
            folder, examples, present, difficult, unknown, tuple(b.shard for b in shards), tuple(skipped)
        )
    return Manifest(raw.name, raw.classes, raw.source, raw.licence, splits)
