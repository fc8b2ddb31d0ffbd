"""How fast pictures come out of a prepared set, and where the time goes: python -m pipelines.benchmark.

Everything runs in one process on the same pictures, in rounds that take turns, so that whatever else the machine does
meets all alike. Beside the clock stands the processors' time a picture, which other programs hardly change.
`--memory` measures instead how much of it building and reading take, of sets of several sizes.
"""

import dataclasses
import io
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.samples import RawSet, Sample

PHOTOGRAPHS = "photographs"  # made for the purpose: of COCO's size and as heavy


@dataclasses.dataclass
class Options:
    dataset: str = option(PHOTOGRAPHS, "A prepared set, or pictures of 640x480 cut from scikit-learn's two.")
    data_dir: Path = option(Path("data"), "Where prepared sets lie.")
    split: str = option("train", "Split to read.")
    image_size: list[int] = option([256, 448], "Sides in px, one after the other.")
    batch_size: int = option(16, "Pictures a batch.")
    pictures: int = option(800, "How many pictures a round reads, at most those of the split.")
    rounds: int = option(3, "Rounds; reported are medians.")
    workers: int = option(2, "Processes of the loader that stands for PyTorch's.")
    memory: list[int] = option(
        [],
        "Instead: the peak memory of building and reading sets of so many small pictures, such as 1000 200000.",
    )
    json: Path | None = option(None, "File for the figures, as a list of objects.")


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to read pictures; medians over the rounds. The ratios are against bare decoding and resizing."""

    name: str
    image_size: int
    images_per_second: float
    cpu_ms_per_image: float
    ratio: float
    cpu_ratio: float


@dataclasses.dataclass(frozen=True)
class MemoryRow:
    """Peak resident memory in MB of processes that did one thing each; `tensorflow_mb`: of one that did nothing."""

    pictures: int
    tensorflow_mb: float
    build_mb: float
    train_mb: float
    eval_mb: float


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        Options, argv, module="pipelines.benchmark", description="Measure how fast pictures come."
    )
    for name in ("batch_size", "pictures", "rounds", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {getattr(options, name)}")
    if min(options.memory, default=1) < 1:
        raise ValueError(f"`memory` must be at least 1. Received: {min(options.memory)}")
    rows: Sequence[Row | MemoryRow]
    with tempfile.TemporaryDirectory() as scratch:
        if options.memory:
            rows = memory_rows = [measure_memory(pictures, Path(scratch)) for pictures in options.memory]
            print_memory(memory_rows)
        else:
            load_tensorflow()
            rows = run_benchmark(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")


def run_benchmark(options: Options, scratch: Path) -> list[Row]:
    """Measure and print everything."""
    from pipelines.build import build_set
    from pipelines.input_pipeline import read_samples
    from pipelines.records import Part, load_manifest

    if options.dataset == PHOTOGRAPHS:
        manifest = build_set(photographs(options.pictures), scratch, processes=1)
    else:
        manifest = load_manifest(options.data_dir, options.dataset)
    split = manifest.splits.get(options.split)
    if split is None:
        raise ValueError(
            f"{manifest.name} has no split {options.split!r}; it has {', '.join(manifest.splits)}."
        )
    # The first pictures of the split, whole batches of them.
    count = min(options.pictures, split.examples) // options.batch_size * options.batch_size
    if not count:
        raise ValueError(f"{options.split} has {split.examples} pictures: less than one batch.")
    files, left = [], count
    for file, shard in zip(split.files, split.shards, strict=True):
        files.append(Part(file, 0, min(left, shard.examples)))
        left -= files[-1].limit
        if not left:
            break
    encoded = [picture.encoded for _, picture in read_samples(files)]
    print(f"{count} pictures of {manifest.name}, {sum(map(len, encoded)) / count / 1000:.0f} kB each")

    rows = []
    for size in options.image_size:
        rows += measure_reading(files, encoded, len(manifest.classes), size, options, scratch / "cache")
    measure_building(encoded, scratch)
    return rows


def measure_reading(
    files: Sequence[Any],
    encoded: list[bytes],
    num_classes: int,
    image_size: int,
    options: Options,
    cache: Path,
) -> list[Row]:
    """The training pipeline, its stages and other loaders, in turns."""
    from pipelines.cache import cache_resized
    from pipelines.input_pipeline import make_train_dataset

    def ours(policy: Any, files: Sequence[Any] = files) -> Callable[[], float]:
        dataset = make_train_dataset(
            files,
            num_classes=num_classes,
            image_size=image_size,
            batch_size=options.batch_size,
            augment=policy,
        )
        return lambda: _exhaust(dataset)

    loader = PillowLoader(encoded, image_size, options.batch_size, options.workers)
    bare = f"bare: decode and resize, {image_size} px"
    ways: dict[str, Callable[[], float]] = {
        bare: _exhauster(_bare(encoded, image_size, options.batch_size)),
        "  of it: decode": _exhauster(_bare(encoded, None, options.batch_size)),
        "  of it: read and parse records": _exhauster(_parsed(files, options.batch_size)),
        "make_train_dataset, augment=none": ours("none"),
        "make_train_dataset, augment=flip": ours("flip"),
        "make_train_dataset, augment=paper": ours("paper"),
        "  the same from a cache on disk": ours("paper", cache_resized(files, image_size, cache)),
        f"as PyTorch: Pillow, paper's augmentation, {options.workers} processes": loader.run_epoch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            elsewhere = run()  # seconds of processes other than this one
            processor[name].append(time.process_time() - cpu + elsewhere)
            seconds[name].append(time.perf_counter() - wall)
    loader.close()

    rows = []
    for name in ways:
        # The first round is for tracing, compiling and the disk's cache.
        wall, cpu = (statistics.median(times[name][1:]) for times in (seconds, processor))
        base, base_cpu = (statistics.median(times[bare][1:]) for times in (seconds, processor))
        rows.append(
            Row(
                name.strip(),
                image_size,
                images_per_second=len(encoded) / wall,
                cpu_ms_per_image=cpu / len(encoded) * 1000,
                ratio=base / wall,
                cpu_ratio=base_cpu / cpu,
            )
        )
    width = max(map(len, ways)) + 2
    print(f"\n{'':{width}}{'images/s':>10}{'of bare':>9}{'cpu ms':>9}{'of bare':>9}")
    for name, row in zip(ways, rows, strict=True):
        print(
            f"{name:{width}}{row.images_per_second:>10.0f}{row.ratio:>9.2f}"
            f"{row.cpu_ms_per_image:>9.2f}{row.cpu_ratio:>9.2f}"
        )
    return rows


def measure_building(encoded: list[bytes], scratch: Path) -> None:
    """`build_set` in one process beside copying the same files and decoding each once."""
    import tensorflow as tf

    from pipelines.build import build_set
    from pipelines.decode import decode

    source, copies = scratch / "source", scratch / "copies"
    source.mkdir()
    copies.mkdir()
    for index, picture in enumerate(encoded):
        (source / f"{index}.jpg").write_bytes(picture)

    def samples() -> Iterator[Sample]:
        for index in range(len(encoded)):
            yield Sample(str(index), source / f"{index}.jpg", present=())

    def copy() -> None:
        for file in source.iterdir():
            content = file.read_bytes()
            (copies / file.name).write_bytes(content)
            decode(tf.constant(content))

    raw = RawSet("built", ("any",), {"train": samples}, source="benchmark")
    times: dict[str, list[float]] = {"copy and decode": [], "build_set, 1 process": []}
    ways = (copy, lambda: build_set(raw, scratch, processes=1, overwrite=True))
    for _ in range(3):
        for name, run in zip(times, ways, strict=True):
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    print("\nbuilding, pictures a second of one processor")
    for name, cpu in times.items():
        print(f"  {name}: {len(encoded) / min(cpu):.0f}")


def measure_memory(pictures: int, scratch: Path) -> MemoryRow:
    """Build a set of so many pictures of 1 kB, read it to train and to evaluate, each in a process of its own."""
    peaks = []
    for work in (_do_nothing, _build_small, _read_to_train, _read_to_evaluate):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            peaks.append(process.submit(_peak_after, work, pictures, scratch).result())
    return MemoryRow(pictures, *peaks)


def print_memory(rows: Sequence[MemoryRow]) -> None:
    """A table, and how much of it the shuffle buffer holds."""
    from pipelines.input_pipeline import SHUFFLE_RECORDS

    print(f"{'peak memory in MB':20}" + "".join(f"{row.pictures:>10,}" for row in rows) + "  pictures")
    for name in ("tensorflow", "build", "train", "eval"):
        print(f"{name:20}" + "".join(f"{getattr(row, f'{name}_mb'):>10.0f}" for row in rows))
    print(f"The shuffle buffer of training holds {SHUFFLE_RECORDS:,} records.")


def _peak_after(work: Callable[[int, Path], None], pictures: int, scratch: Path) -> float:
    load_tensorflow()
    work(pictures, scratch)
    # Not getrusage's, which counts the process that ours was forked from.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1000


def _do_nothing(pictures: int, scratch: Path) -> None:
    import tensorflow as tf

    tf.zeros(()).numpy()


def _build_small(pictures: int, scratch: Path) -> None:
    from PIL import Image

    from pipelines.build import build_set

    # Every record has an id of its own; the file behind them may be the same.
    file = scratch / "small.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG")

    def samples() -> Iterator[Sample]:
        for index in range(pictures):
            yield Sample(f"{index:09}", file, present=(index % 80,))

    raw = RawSet(f"small-{pictures}", tuple(map(str, range(80))), {"train": samples}, source="benchmark")
    build_set(raw, scratch, processes=1)


def _read_to_train(pictures: int, scratch: Path) -> None:
    from pipelines.input_pipeline import make_train_dataset

    _exhaust(make_train_dataset(**_small(pictures, scratch), seed=1))


def _read_to_evaluate(pictures: int, scratch: Path) -> None:
    from pipelines.input_pipeline import make_eval_dataset

    _exhaust(make_eval_dataset(**_small(pictures, scratch)))


def _small(pictures: int, scratch: Path) -> dict[str, Any]:
    from pipelines.records import load_manifest

    files = load_manifest(scratch, f"small-{pictures}").splits["train"].files
    return {"files": files, "num_classes": 80, "image_size": 64, "batch_size": 16}


def _bare(encoded: list[bytes], image_size: int | None, batch_size: int) -> Any:
    """What any pipeline must do at least: from memory, TensorFlow's own decoding and resizing, batches."""
    import tensorflow as tf

    def load(picture: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(picture, channels=3, expand_animations=False)
        if image_size is None:
            return tf.shape(pixels)
        resized = tf.image.resize(pixels, (image_size, image_size), antialias=True)
        return tf.ensure_shape(resized, (image_size, image_size, 3))

    dataset = tf.data.Dataset.from_tensor_slices(encoded)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _parsed(files: Sequence[Any], batch_size: int) -> Any:
    import tensorflow as tf

    from pipelines.records import parse_record

    dataset = tf.data.TFRecordDataset([str(file.path) for file in files])
    dataset = dataset.map(lambda record: parse_record(record)["id"], num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _exhauster(dataset: Any) -> Callable[[], float]:
    return lambda: _exhaust(dataset)


def _exhaust(dataset: Any) -> float:
    for _ in dataset:
        pass
    return 0.0


class PillowLoader:
    """What a PyTorch `DataLoader` with torchvision's PIL transforms does, without torch.

    Each worker process decodes, resizes, mirrors and jitters the pictures of a whole batch with Pillow, and leaves
    them as float32 in memory that it shares with this process.
    """

    def __init__(self, encoded: list[bytes], image_size: int, batch_size: int, workers: int) -> None:
        self._batches = [encoded[i : i + batch_size] for i in range(0, len(encoded), batch_size)]
        self._shape = (batch_size, 3, image_size, image_size)
        self._slots = 2 * workers  # as many batches ahead as DataLoader's prefetch_factor of 2
        context = multiprocessing.get_context("spawn")
        self._memory = [context.RawArray("f", int(np.prod(self._shape))) for _ in range(self._slots)]
        self._pool = context.Pool(workers, _share, (self._memory, self._shape))

    def run_epoch(self) -> float:
        """Load every batch once; the processor time of the workers in seconds."""
        waiting = [self._submit(number) for number in range(min(self._slots, len(self._batches)))]
        cpu = 0.0
        for number in range(len(self._batches)):
            cpu += waiting.pop(0).get()
            # Whoever takes the batch takes it as it is; then its memory is free for the next one.
            if number + self._slots < len(self._batches):
                waiting.append(self._submit(number + self._slots))
        return cpu

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def _submit(self, number: int) -> Any:
        return self._pool.apply_async(_load_batch, (number % self._slots, number, self._batches[number]))


_shared: list[np.ndarray] = []  # in a worker of PillowLoader


def _share(memory: list[Any], shape: tuple[int, ...]) -> None:
    _shared.extend(np.frombuffer(array, np.float32).reshape(shape) for array in memory)


def _load_batch(slot: int, seed: int, encoded: list[bytes]) -> float:
    from PIL import Image, ImageEnhance

    started = time.process_time()
    rng = np.random.default_rng(seed)
    size = _shared[slot].shape[2:]
    for place, picture in enumerate(encoded):
        image: Any = (
            Image.open(io.BytesIO(picture)).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        )
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for which in rng.permutation(3):
            image = enhancers[which](image).enhance(rng.uniform(0.7, 1.3))
        _shared[slot][place] = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    return time.process_time() - started


def photographs(count: int) -> RawSet:
    """`count` JPEGs of 640x480 px and 80 kB or so, cut here and there from scikit-learn's two photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    def samples() -> Iterator[Sample]:
        photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
        rng = np.random.default_rng(0)
        for index in range(count):
            left, top = int(rng.integers(60)), int(rng.integers(30))
            cut = photos[index % 2].crop((left, top, left + 580, top + 395)).resize((640, 480))
            file = io.BytesIO()
            cut.save(file, "JPEG", quality=92)
            yield Sample(f"{index:06}", file.getvalue(), present=(index % 2,))

    return RawSet(
        PHOTOGRAPHS, ("temple", "flower"), {"train": samples}, source="scikit-learn's load_sample_images"
    )


if __name__ == "__main__":
    run_command(main)
