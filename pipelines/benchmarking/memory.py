"""Measure the peak memory of processes that build sets of given sizes and read them to train and to evaluate."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.benchmarking.own_process import peak_memory, run_alone
from pipelines.building.sets import build_set
from pipelines.command import load_tensorflow
from pipelines.manifest import load_manifest
from pipelines.samples import RawSet, Sample


@dataclasses.dataclass(frozen=True)
class MemoryRow:
    """Peak resident memory in MB of processes that did one thing each; `tensorflow_mb`: only loaded TensorFlow."""

    pictures: int
    tensorflow_mb: float
    build_mb: float
    train_mb: float
    eval_mb: float


def measure_memory(pictures: int, scratch: Path) -> MemoryRow:
    """Build a set of `pictures` pictures of 1 kB, read it to train, read it to evaluate, each in its own process."""
    peaks = []
    for work in (_do_nothing, _build_small, _read_to_train, _read_to_evaluate):
        peaks.append(run_alone(_peak_after, work, pictures, scratch))
    return MemoryRow(pictures, *peaks)


def print_memory(rows: Sequence[MemoryRow]) -> None:
    """Print a table, and how many records the shuffle buffer holds."""
    from pipelines.input_pipeline import SHUFFLE_RECORDS

    print(f"{'peak memory in MB':20}" + "".join(f"{row.pictures:>10,}" for row in rows) + "  pictures")
    for name in ("tensorflow", "build", "train", "eval"):
        print(f"{name:20}" + "".join(f"{getattr(row, f'{name}_mb'):>10.0f}" for row in rows))
    print(f"The shuffle buffer of training holds {SHUFFLE_RECORDS:,} records.")


def _peak_after(work: Callable[[int, Path], None], pictures: int, scratch: Path) -> float:
    load_tensorflow()
    work(pictures, scratch)
    return peak_memory()


def _do_nothing(pictures: int, scratch: Path) -> None:
    import tensorflow as tf

    tf.zeros(()).numpy()


def _build_small(pictures: int, scratch: Path) -> None:
    from PIL import Image

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

    _exhaust(make_train_dataset(**_small(pictures, scratch), epoch=0, seed=1))


def _read_to_evaluate(pictures: int, scratch: Path) -> None:
    from pipelines.input_pipeline import make_eval_dataset

    _exhaust(make_eval_dataset(**_small(pictures, scratch)))


def _small(pictures: int, scratch: Path) -> dict[str, Any]:
    files = load_manifest(scratch, f"small-{pictures}").splits["train"].files
    return {"files": files, "num_classes": 80, "image_size": 64, "batch_size": 16}


def _exhaust(dataset: Iterable[Any]) -> None:
    for _ in dataset:
        pass
