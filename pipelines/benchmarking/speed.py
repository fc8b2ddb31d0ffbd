"""Measure how fast the pictures of a prepared set are read, and where the time goes.

Everything runs from one process on the same pictures, in turns, so that whatever else the machine does affects all
alike. Besides elapsed time, processor time per picture is measured, which other programs hardly change.
"""

import dataclasses
import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.benchmarking.peer import PillowLoader
from pipelines.building.sets import build_set
from pipelines.manifest import Manifest, Part
from pipelines.samples import RawSet, Sample

PHOTOGRAPHS = "photographs"  # a set made for this: pictures of COCO's size in px and in bytes


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to read pictures; medians over the rounds. The ratios are against bare decoding and resizing."""

    name: str
    image_size: int
    images_per_second: float
    cpu_ms_per_image: float
    ratio: float
    cpu_ratio: float


def measure_speed(
    manifest: Manifest,
    split_name: str,
    *,
    image_sizes: Sequence[int],
    batch_size: int,
    pictures: int,
    rounds: int,
    workers: int,
    scratch: Path,
) -> list[Row]:
    """Measure and print how fast a split is read, by our pipeline and by others, and how fast it is built.

    Args:
        manifest: of the prepared set.
        split_name: of the split to read.
        image_sizes: sides in px, one after the other.
        batch_size: pictures per batch.
        pictures: how many pictures a round reads, at most those of the split.
        rounds: how often everything is measured; the medians are reported.
        workers: processes of the loader that stands in for PyTorch's.
        scratch: folder for temporary files.

    Returns:
        One row for each size and way to read.
    """
    from pipelines.input_pipeline import read_samples

    split = manifest.splits.get(split_name)
    if split is None:
        raise ValueError(f"{manifest.name} has no split {split_name!r}; it has {', '.join(manifest.splits)}.")
    # Read the first pictures of the split, in whole batches.
    count = min(pictures, split.examples) // batch_size * batch_size
    if not count:
        raise ValueError(f"{split_name} has {split.examples} pictures: less than one batch.")
    files, left = [], count
    for file, shard in zip(split.files, split.shards, strict=True):
        files.append(Part(file, 0, min(left, shard.examples)))
        left -= files[-1].limit
        if not left:
            break
    encoded = [picture.encoded for _, picture in read_samples(files)]
    print(f"{count} pictures of {manifest.name}, {sum(map(len, encoded)) / count / 1000:.0f} kB each")

    rows = []
    for size in image_sizes:
        shape = {"num_classes": len(manifest.classes), "image_size": size, "batch_size": batch_size}
        rows += measure_reading(
            files, encoded, **shape, rounds=rounds, workers=workers, cache_dir=scratch / "cache"
        )
    measure_building(encoded, scratch)
    return rows


def measure_reading(
    files: Sequence[Any],
    encoded: list[bytes],
    *,
    num_classes: int,
    image_size: int,
    batch_size: int,
    rounds: int,
    workers: int,
    cache_dir: Path,
) -> list[Row]:
    """Measure the training pipeline, its stages and another loader, in turns."""
    from pipelines.cache import cache_resized
    from pipelines.input_pipeline import make_train_dataset

    def ours(policy: Any, files: Sequence[Any] = files) -> Callable[[], float]:
        datasets = [
            make_train_dataset(
                files,
                num_classes=num_classes,
                image_size=image_size,
                batch_size=batch_size,
                epoch=epoch,
                augment=policy,
            )
            for epoch in range(rounds + 1)
        ]
        return lambda: _exhaust(datasets.pop())

    loader = PillowLoader(encoded, image_size, batch_size, workers)
    bare = f"bare: decode and resize, {image_size} px"
    ways: dict[str, Callable[[], float]] = {
        bare: _exhauster(_bare(encoded, image_size, batch_size)),
        "  of it: decode": _exhauster(_bare(encoded, None, batch_size)),
        "  of it: read and parse records": _exhauster(_parsed(files, batch_size)),
        "make_train_dataset, augment=none": ours("none"),
        "make_train_dataset, augment=flip": ours("flip"),
        "make_train_dataset, augment=paper": ours("paper"),
        "  the same from a cache on disk": ours("paper", cache_resized(files, image_size, cache_dir)),
        f"as PyTorch: Pillow, paper's augmentation, {workers} processes": loader.run_epoch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            elsewhere = run()  # seconds of processes other than this one
            processor[name].append(time.process_time() - cpu + elsewhere)
            seconds[name].append(time.perf_counter() - wall)
    loader.close()

    rows = []
    for name in ways:
        # The first round is not counted: it traces, compiles and fills the disk's cache.
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
    """Measure `build_set` in one process, and for comparison copying the same files and decoding each once."""
    import tensorflow as tf

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


def _bare(encoded: list[bytes], image_size: int | None, batch_size: int) -> Any:
    """The least that any pipeline must do: decode and resize pictures from memory with TensorFlow, and batch them."""
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


def photographs(count: int) -> RawSet:
    """`count` JPEGs of 640x480 px and about 80 kB, cut at random places from scikit-learn's two photographs."""
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
