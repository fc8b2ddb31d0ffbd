"""Original files in, a prepared set out: python -m pipelines.build --dataset coco --source DIR --data-dir DIR.

A reader's samples are laid, without their pixels, into one file for each shard; then processes make the shards
independently: read a picture, decode it, write its record. So memory holds the labels of one shard a process, however
many pictures there are, and a build that was stopped anywhere goes on with the shards that it had finished.
"""

import concurrent.futures
import dataclasses
import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pipelines import records
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import PARTIAL, file_sha256, locked, write_text
from pipelines.pictures import MAX_MEGAPIXELS, MOST_MEGAPIXELS, BadPicture, check_picture
from pipelines.records import Manifest, Shard, Split
from pipelines.samples import RawSet, Sample, Skip
from pipelines.words import spell

if TYPE_CHECKING:
    from tqdm import tqdm

# name -> module, reader and its options; all but `digits` take the folder of the original files first.
READERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits": ("pipelines.readers.digits", "read_digits", {}),
    "coco": ("pipelines.readers.coco", "read_coco", {"year": 2014}),
    "coco2017": ("pipelines.readers.coco", "read_coco", {"year": 2017}),
    "voc2007": ("pipelines.readers.voc", "read_voc", {"year": 2007}),
    "voc2012": ("pipelines.readers.voc", "read_voc", {"year": 2012}),
    "table": ("pipelines.readers.table", "read_table", {}),
}
TFDS_NAMES = {"coco": "coco/2014", "coco2017": "coco/2017", "voc2007": "voc/2007", "voc2012": "voc/2012"}
OnBadImage = Literal["skip", "stop"]

VALID_ID = re.compile(r"[A-Za-z0-9_./-]+")
WORK_FOLDER = ".building"  # of an unfinished build, inside the set's folder
SPOOL_BYTES = 64 * 2**20  # of samples in memory, before they are laid into their shards' files
BYTES_A_PROCESS = 64 * 2**20  # of pictures, below which another process costs more than it brings
READING = "of particular sets"


@dataclasses.dataclass
class SourceOptions:
    """What is to be built, from where; `pipelines.beam` has these options too."""

    dataset: str = option("digits", f"Which set: {', '.join(READERS)}.")
    source: Path | None = option(
        None,
        "The original files: a folder, for `table` a CSV or JSON; or `tfds`, or `tfds:FOLDER` of TFDS' own.",
    )
    data_dir: Path = option(Path("data"), "Where prepared sets lie; this one goes into <data-dir>/<dataset>.")
    on_bad_image: OnBadImage = option("skip", "What to do about a picture that cannot be used: skip or stop.")
    max_megapixels: float = option(
        MAX_MEGAPIXELS, f"Larger pictures count as bad, at most {MOST_MEGAPIXELS}."
    )
    overwrite: bool = option(False, "Build a set anew that is there already.")
    seed: int | None = option(
        None, "digits, table: of the scenes; of the division into splits.", group=READING
    )
    keep_unlabelled: bool = option(False, "coco: keep pictures without any object.", group=READING)
    manual_dir: Path | None = option(None, "tfds: folder of the original archives.", group=READING)
    images: Path | None = option(None, "table: folder to which its files are relative.", group=READING)
    classes: Path | None = option(None, "table: text file of the class names, one a line.", group=READING)
    name: str | None = option(None, "table: name of the prepared set, instead of `table`.", group=READING)
    val_fraction: float | None = option(None, "table without splits: share of `validation`.", group=READING)
    test_fraction: float | None = option(None, "table without splits: share of `test`.", group=READING)
    licence: str | None = option(
        None, "table: terms of its pictures, to be kept with the set.", group=READING
    )


@dataclasses.dataclass
class Options(SourceOptions):
    processes: int | None = option(None, "Processes that read and decode; by default one a core.")
    verify: bool = option(
        False, "Build nothing: read every shard of the set and compare it with its checksum."
    )
    stats: bool = option(False, "Build nothing: print and draw what is in the set.")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        Options, argv, module="pipelines.build", description="Turn a set's original files into TFRecords."
    )
    if options.verify or options.stats:
        _inspect(options)
        return
    raw = read_by_options(options)
    load_tensorflow()
    manifest = build_set(
        raw,
        options.data_dir,
        processes=options.processes,
        on_bad_image=options.on_bad_image,
        max_megapixels=options.max_megapixels,
        overwrite=options.overwrite,
    )
    print_outcome(manifest, options.data_dir)


def read_by_options(options: SourceOptions, **more: Any) -> RawSet:
    """The raw set that the options of a command line name; `more` are options of its reader."""
    reading = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.metadata["group"] == READING and getattr(options, field.name) not in (None, False)
    }
    if not options.overwrite:  # said before anything is read or downloaded
        refuse_complete(options.data_dir / (options.name or options.dataset))
    return read_raw_set(options.dataset, options.source, **reading, **more)


def print_outcome(manifest: Manifest, data_dir: Path) -> None:
    """Tell how many pictures are in a set that was built, and which were left out."""
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.examples:,} pictures in {len(split.shards)} shards, {len(split.skipped):,} left out"
        )
        for skip in split.skipped[:3]:
            print(f"  left out: {skip.id} {skip.why}")
        if len(split.skipped) > 3:
            print(f"  ... all are in {data_dir / manifest.name / records.MANIFEST}")
    print(f"Prepared: {data_dir / manifest.name}")


def _inspect(options: Options) -> None:
    name = options.name or options.dataset
    load_tensorflow()
    if options.verify:
        from pipelines.verify import verify_set

        print(verify_set(options.data_dir, name))
    if options.stats:
        from pipelines.stats import draw_statistics, print_statistics, read_statistics

        manifest = records.load_manifest(options.data_dir, name)
        statistics = {split: read_statistics(manifest, split) for split in manifest.splits}
        print_statistics(manifest, statistics)
        print(f"Drawn: {draw_statistics(manifest, statistics, options.data_dir / name / 'stats.png')}")


def read_raw_set(dataset: str, source: Path | str | None = None, **options: Any) -> RawSet:
    """The raw set of a name in `READERS`.

    Args:
        dataset: the name.
        source: the original files; `tfds` or `tfds:FOLDER` for what TensorFlow Datasets downloads or has in FOLDER;
            None for digits alone.
        options: the reader's own.
    """
    if dataset not in READERS:
        raise ValueError(f"`--dataset` must be one of {', '.join(READERS)}. Received: {dataset!r}")
    module, function, fixed = READERS[dataset]
    arguments: list[Any] = [] if source is None else [source]
    if dataset == "digits" and source is not None:
        raise ValueError("`--source` does nothing for digits, which are made on the spot. Leave it out.")
    if dataset != "digits" and source is None:
        raise ValueError(f"`--source` must name the original files of {dataset}.")
    scheme, _, folder = str(source).partition(":")
    if scheme == "tfds":
        if dataset not in TFDS_NAMES:
            raise ValueError(f"TFDS is a source of {', '.join(TFDS_NAMES)}. Received: {dataset!r}")
        module, function, fixed = "pipelines.readers.tfds", "read_tfds", {}
        arguments = [TFDS_NAMES[dataset], folder or None]
    read = getattr(importlib.import_module(module), function)
    for name in options:
        if name not in inspect.signature(read).parameters:
            raise ValueError(f"`--{spell(name)}` does nothing for {dataset}. Leave it out.")
    return read(*arguments, **fixed, **options)


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
        layout = _lay_out(raw, work)
        _refuse_if_short_of_space(folder, sum(split.encoded_bytes for split in layout.values()))
        tasks = [
            ShardTask(folder, split, shard, plan.num_shards, len(raw.classes), on_bad_image, max_megapixels)
            for split, plan in layout.items()
            for shard in range(plan.num_shards)
        ]
        if processes is None:
            encoded = sum(split.encoded_bytes for split in layout.values())
            processes = min(_count_cores(), 1 + encoded // BYTES_A_PROCESS)
        with _progress_bar(raw.name, total=sum(split.examples for split in layout.values())) as bar:
            try:
                built = _run(tasks, min(processes, len(tasks)), bar)
            except BaseException:
                _remove(folder.glob(f"{PARTIAL}*"))  # another process was ended amid its shard
                raise
        by_split: dict[str, list[BuiltShard]] = {split: [] for split in layout}
        for task, shard in zip(tasks, built, strict=True):
            by_split[task.split].append(shard)
        manifest = complete_set(raw, folder, by_split)
        shutil.rmtree(work, ignore_errors=True)  # while nobody else builds; what may be left does no harm
    return manifest


# --- One shard, wherever it is built


def check_handling(on_bad_image: OnBadImage, max_megapixels: float) -> None:
    """Refuse values that say nothing about what to do with a picture."""
    if on_bad_image not in get_args(OnBadImage):
        raise ValueError(f"`on_bad_image` must be skip or stop. Received: {on_bad_image!r}")
    if not 0 < max_megapixels <= MOST_MEGAPIXELS:
        raise ValueError(f"`max_megapixels` must lie in (0, {MOST_MEGAPIXELS}]. Received: {max_megapixels:g}")


@dataclasses.dataclass(frozen=True)
class BuiltShard:
    """A finished shard and what the manifest will say of its pictures; counts are per class."""

    shard: Shard
    present: tuple[int, ...]
    difficult: tuple[int, ...]
    unknown: tuple[int, ...]
    skipped: tuple[Skip, ...]


def check_sample(sample: Sample, split: str, num_classes: int) -> None:
    """Refuse an id or a label that a record cannot hold."""
    if not VALID_ID.fullmatch(sample.id):
        raise ValueError(f"The id {sample.id!r} in {split} has characters other than A-Z a-z 0-9 _ . / -")
    for label in (*sample.present, *sample.difficult, *sample.unknown, *sample.box_labels):
        if not 0 <= label < num_classes:
            raise ValueError(
                f"The picture {sample.id} in {split} has class {label}; there are {num_classes}."
            )


def encoded_size(sample: Sample) -> int:
    """The bytes of a sample's file; those of a split together decide its number of shards."""
    return len(sample.image) if isinstance(sample.image, bytes) else sample.image.stat().st_size


def build_shard(
    path: Path,
    samples: Iterable[Sample],
    num_classes: int,
    *,
    on_bad_image: OnBadImage = "skip",
    max_megapixels: float = MAX_MEGAPIXELS,
    on_picture: Callable[[int], object] = lambda count: None,
) -> BuiltShard:
    """Read, check and write the pictures that belong into one shard, in any order.

    Args:
        path: of the shard; it is there only once it is whole.
        samples: all those for which `records.shard_of` gives this shard.
        num_classes: of the set.
        on_bad_image: as in `build_set`.
        max_megapixels: as in `build_set`.
        on_picture: is called with 1 after every picture.
    """
    counts = {kind: [0] * num_classes for kind in ("present", "difficult", "unknown")}
    skipped: list[Skip] = []

    def serialized() -> Iterator[bytes]:
        previous = None
        for sample in sorted(samples, key=_order):
            if sample.id == previous:
                raise ValueError(f"Two pictures of {path.name.split('-')[0]} have the id {sample.id!r}.")
            previous = sample.id
            encoded = sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()
            try:
                picture = check_picture(encoded, max_megapixels)
            except BadPicture as error:
                if on_bad_image == "stop":
                    where = sample.id if isinstance(sample.image, bytes) else sample.image
                    raise ValueError(
                        f"{where} {error}. (--on-bad-image skip leaves such pictures out.)"
                    ) from error
                skipped.append(Skip(sample.id, str(error)))
            else:
                for kind, count in counts.items():
                    for label in getattr(sample, kind):
                        count[label] += 1
                yield records.serialize_record(sample, picture)
            on_picture(1)

    shard = records.write_shard(path, serialized())
    present, difficult, unknown = (tuple(count) for count in counts.values())
    return BuiltShard(shard, present, difficult, unknown, tuple(skipped))


def begin_anew(folder: Path) -> None:
    """From here on there is no set, until its manifest is written."""
    (folder / records.MANIFEST).unlink(missing_ok=True)
    _remove(folder.glob(f"{PARTIAL}*"))


def complete_set(raw: RawSet, folder: Path, built: dict[str, list[BuiltShard]]) -> Manifest:
    """Write the manifest of finished shards, in order; `raw`'s samples must have been iterated."""
    manifest = _assemble_manifest(raw, folder, built)
    keep = {file for split in manifest.splits.values() for file in split.files}
    _remove(file for file in folder.glob("*.tfrecord") if file not in keep)
    records.write_manifest(folder, manifest)
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


def _order(sample: Sample) -> tuple[bytes, str]:
    return records.sort_key(sample.id), sample.id


# --- From a reader to one file of samples a shard


class _Plan(NamedTuple):
    """Of one split."""

    examples: int
    encoded_bytes: int
    num_shards: int


class StampedSample(NamedTuple):
    """A sample on its way to its shard, and what tells whether its file is still the same."""

    sample: Sample
    stamp: tuple[int, int] | str  # size and time of change of the file, or the hash of the bytes


def _lay_out(raw: RawSet, work: Path) -> dict[str, _Plan]:
    """Go through the reader once; leave the samples of each shard in a file of `work`."""
    _remove(work.glob("*.samples"))
    layout = {}
    with _progress_bar(f"{raw.name}: listing") as bar:
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
            layout[split] = _Plan(examples, encoded, num_shards)
    return layout


def _distribute(everything: Path, work: Path, split: str, num_shards: int) -> None:
    """Sort a file of samples into one file a shard, through a buffer of `SPOOL_BYTES`."""
    pending: dict[int, list[bytes]] = defaultdict(list)
    size = 0

    def flush() -> None:
        for shard, blobs in pending.items():
            with _spool_file(work, split, shard, num_shards).open("ab") as file:
                file.writelines(blobs)
        pending.clear()

    for shard in range(num_shards):
        _spool_file(work, split, shard, num_shards).touch()
    for item in _read_spool(everything):
        blob = pickle.dumps(item)
        pending[records.shard_of(item.sample.id, num_shards)].append(blob)
        size += len(blob)
        if size > SPOOL_BYTES:
            flush()
            size = 0
    flush()


def _spool_file(work: Path, split: str, shard: int, num_shards: int) -> Path:
    return work / f"{records.shard_name(split, shard, num_shards)}.samples"


def _read_spool(path: Path) -> Iterator[StampedSample]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return


def stamp(sample: Sample) -> tuple[int, int] | str:
    if isinstance(sample.image, bytes):
        return hashlib.sha256(sample.image).hexdigest()
    status = sample.image.stat()
    return status.st_size, status.st_mtime_ns


# --- Building shards, here or in processes of their own


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be built from its file of samples."""

    folder: Path
    split: str
    shard: int
    num_shards: int
    num_classes: int
    on_bad_image: OnBadImage
    max_megapixels: float

    @property
    def path(self) -> Path:
        return self.folder / records.shard_name(self.split, self.shard, self.num_shards)

    @property
    def note(self) -> Path:
        """What is known of the finished shard, for a build that goes on."""
        return self.folder / WORK_FOLDER / f"{self.path.name}.json"


def _run(tasks: list[ShardTask], processes: int, bar: "tqdm") -> list[BuiltShard]:
    if processes == 1:
        return [_finish(task, bar.update) for task in tasks]
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    others = set(multiprocessing.active_children())
    executor = concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, (counter,))
    try:
        futures = [executor.submit(_finish_in_worker, task) for task in tasks]
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_EXCEPTION)
            bar.update(counter.value - bar.n)
            for future in done:
                future.result()
        return [future.result() for future in futures]
    except concurrent.futures.process.BrokenProcessPool as error:
        raise RuntimeError(
            "a process of the build was killed, perhaps for want of memory; the same command goes on, with"
            f" --processes {max(1, processes // 2)} it needs less"
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


_counter: Any = None  # in a worker: how many pictures all of them have done


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    load_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # or every process would take memory of it


def _leave_with_parent() -> None:
    """A parent that was killed can't end us: we would write into what may be another build by then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _finish_in_worker(task: ShardTask) -> BuiltShard:
    def on_picture(count: int) -> None:
        with _counter.get_lock():
            _counter.value += count

    return _finish(task, on_picture)


def _finish(task: ShardTask, on_picture: Callable[[int], object]) -> BuiltShard:
    spool = _spool_file(task.folder / WORK_FOLDER, task.split, task.shard, task.num_shards)
    return finish_shard(task, list(_read_spool(spool)), on_picture)


def finish_shard(
    task: ShardTask, spooled: Sequence[StampedSample], on_picture: Callable[[int], object]
) -> BuiltShard:
    """Build a shard, unless an earlier build did from the same samples and it still is as it was written."""
    digest = _digest(task, spooled)
    built = _read_note(task, digest)
    if built is not None:
        on_picture(len(spooled))
        return built
    built = build_shard(
        task.path,
        (item.sample for item in spooled),
        task.num_classes,
        on_bad_image=task.on_bad_image,
        max_megapixels=task.max_megapixels,
        on_picture=on_picture,
    )
    note = json.dumps({"digest": digest, **dataclasses.asdict(built)})
    write_text(task.note, note)
    return built


def _digest(task: ShardTask, spooled: Sequence[StampedSample]) -> str:
    """A hash of all that a shard follows from."""
    everything = hashlib.sha256(
        repr((records.SCHEMA_VERSION, task.num_classes, task.on_bad_image, task.max_megapixels)).encode()
    )
    for item in sorted(spooled, key=lambda item: _order(item.sample)):
        sample = (
            dataclasses.replace(item.sample, image=b"")
            if isinstance(item.sample.image, bytes)
            else item.sample
        )
        everything.update(repr((sample, item.stamp)).encode())
    return everything.hexdigest()


def _read_note(task: ShardTask, digest: str) -> BuiltShard | None:
    if not task.note.exists() or not task.path.exists():
        return None
    note = json.loads(task.note.read_text())
    if note.pop("digest") != digest or file_sha256(task.path) != note["shard"]["sha256"]:
        return None
    return BuiltShard(
        shard=Shard(**note["shard"]),
        present=tuple(note["present"]),
        difficult=tuple(note["difficult"]),
        unknown=tuple(note["unknown"]),
        skipped=tuple(Skip(**skip) for skip in note["skipped"]),
    )


# --- Around a build


def refuse_complete(folder: Path) -> None:
    if (folder / records.MANIFEST).exists():
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


def _refuse_if_short_of_space(folder: Path, encoded_bytes: int) -> None:
    there = sum(file.stat().st_size for file in folder.glob("*.tfrecord"))
    free = shutil.disk_usage(folder).free
    if encoded_bytes > there + free:
        raise ValueError(
            f"The records need {(encoded_bytes - there) / 1e6:,.0f} MB, and {folder} has {free / 1e6:,.0f} MB free."
            " Free some space or choose another --data-dir."
        )


def _count_cores() -> int:
    """Those that this process may use, where the system tells (Linux does)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _progress_bar(title: str, total: int | None = None) -> "tqdm":
    from tqdm import tqdm

    # Into a log file go few lines, onto a terminal two a second.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, desc=title, unit=" pictures", mininterval=interval, file=sys.stderr)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    run_command(main)
