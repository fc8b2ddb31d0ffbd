"""Build a prepared set on Apache Beam, with exactly the bytes that one machine writes.

The place of a picture follows from its id and the number of shards. Only ids, paths and labels travel between
workers; a picture is read, decoded and written by the worker that builds its shard. Every worker, and the machine
that starts the build, must see source and data directory under the same paths. See docs/building-at-scale.md.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import records
from pipelines.building.packing import Packed, check_sample, pack
from pipelines.building.sets import complete_set, only_build_in, shard_path
from pipelines.building.shards import WORK_FOLDER, OnBadImage, ShardTask, check_handling, finish_shard
from pipelines.command import load_tensorflow
from pipelines.manifest import Manifest, load_manifest
from pipelines.pictures import MAX_MEGAPIXELS
from pipelines.samples import RawSet, check_class_names


def build_set_on_beam(
    raw: RawSet,
    data_dir: Path | str,
    beam_options: Sequence[str] = (),
    *,
    on_bad_image: OnBadImage = "skip",
    max_megapixels: float = MAX_MEGAPIXELS,
    overwrite: bool = False,
) -> Manifest:
    """Write the prepared set `<data_dir>/<raw.name>` as `build_set` does, or resume a build that was stopped.

    Args:
        raw: what a reader returned; its paths must be valid on every worker.
        data_dir: where prepared sets lie.
        beam_options: Beam's own, as on a command line: `["--runner=FlinkRunner", "--parallelism=64"]`.
        on_bad_image: as in `build_set`, like those that follow.
        max_megapixels: larger pictures count as bad.
        overwrite: build a complete set anew, instead of refusing to.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError("Apache Beam is not installed: pip install 'mcar-tf[beam]'") from error

    check_handling(on_bad_image, max_megapixels)
    check_class_names(raw.classes)
    folder = Path(data_dir).absolute() / raw.name
    with only_build_in(folder, overwrite) as in_use, _brief_errors():
        with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
            # One worker per split goes through the reader; then the rows are distributed to all workers.
            listed = (
                pipeline
                | "Splits" >> beam.Create(list(raw.splits))
                | "List" >> beam.FlatMap(_list_split, raw).with_outputs("skipped", main="samples")
            )
            # A separate step: BundleBasedDirectRunner mistakes a tagged output, as a side input, for the main one.
            left_out = listed.skipped | "Left out" >> beam.Map(tuple)
            packed = listed.samples | beam.Reshuffle() | "Pack" >> beam.Map(_pack)
            # The bytes of all files of a split decide its number of shards.
            num_shards = (
                packed
                | "Weigh" >> beam.Map(_weigh)
                | beam.CombinePerKey(sum)
                | "Count shards" >> beam.Map(_count_shards)
            )
            # A shard that gets no picture is written too.
            placed = packed | "Place" >> beam.Map(_place, beam.pvalue.AsDict(num_shards))
            shards = num_shards | "Shards" >> beam.FlatMap(_list_shards)
            built = (
                (placed, shards)
                | beam.Flatten()
                | beam.GroupByKey()
                | "Write"
                >> beam.Map(_write_shard, folder, in_use, len(raw.classes), on_bad_image, max_megapixels)
            )
            (
                built
                | beam.combiners.ToList()
                | "Manifest" >> beam.Map(_write_manifest, raw, folder, beam.pvalue.AsDict(left_out))
            )
        shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
    return load_manifest(folder.parent, raw.name)


@contextmanager
def _brief_errors() -> Iterator[None]:
    """Shorten the errors of runners that put a worker's whole traceback into a `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
        raise RuntimeError(f"the job on Beam failed: {lines[-1].strip()}") from error


# --- The steps, in their order. An element is (split, ...) until its shard is known.


def _list_split(split: str, raw: RawSet) -> Iterator[Any]:
    """A split's samples, and at the end those that its reader left out."""
    from apache_beam.pvalue import TaggedOutput

    for sample in raw.splits[split]():
        check_sample(sample, split, len(raw.classes))
        yield split, sample
    yield TaggedOutput("skipped", (split, list(raw.skipped.get(split, []))))


def _pack(element: Any) -> Any:
    split, sample = element
    return split, pack(sample)


def _weigh(element: Any) -> Any:
    split, packed = element
    return split, Packed(*packed).encoded_bytes


def _count_shards(element: Any) -> Any:
    split, encoded_bytes = element
    return split, records.count_shards(encoded_bytes)


def _place(element: Any, num_shards: dict[str, int]) -> Any:
    """Give a sample its shard as the key: split, number of the shard, number of shards."""
    split, packed = element
    return (split, records.shard_of(Packed(*packed).id, num_shards[split]), num_shards[split]), packed


def _list_shards(element: Any) -> Iterator[Any]:
    split, num_shards = element
    for shard in range(num_shards):
        yield (split, shard, num_shards), None


def _write_shard(
    element: Any,
    folder: Path,
    in_use: frozenset[str],
    num_classes: int,
    on_bad_image: OnBadImage,
    max_megapixels: float,
) -> Any:
    from apache_beam.metrics import Metrics

    if "tensorflow" not in sys.modules:
        load_tensorflow()
    (split, shard, num_shards), items = element
    path = shard_path(folder, split, shard, num_shards, in_use)
    task = ShardTask(path, split, shard, num_shards, num_classes, on_bad_image, max_megapixels)
    # Beam may have turned them into plain tuples on the way.
    samples = [Packed(*packed) for packed in items if packed is not None]
    samples.sort(key=lambda packed: (records.sort_key(packed.id), packed.id))
    pictures = Metrics.counter("mcar_tf", "pictures")
    return task, finish_shard(task, lambda: samples, pictures.inc)


def _write_manifest(built: Iterable[Any], raw: RawSet, folder: Path, skipped: dict[str, Any]) -> None:
    raw.skipped = skipped
    complete_set(raw, folder, built)
