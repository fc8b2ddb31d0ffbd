"""Original files in, a prepared set out: python -m pipelines.build --dataset coco --source DIR."""

import dataclasses
import importlib
import io
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.command import option, parse_options, run_command
from pipelines.samples import RawSet, Sample, Skip

if TYPE_CHECKING:
    from tqdm import tqdm

    from pipelines import records

# name -> module, reader and its options; all but `digits` take the folder of the original files first.
READERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits": ("pipelines.digits", "read_digits", {}),
    "coco": ("pipelines.coco", "read_coco", {"year": 2014}),
    "coco2017": ("pipelines.coco", "read_coco", {"year": 2017}),
    "voc2007": ("pipelines.voc", "read_voc", {"year": 2007}),
    "voc2012": ("pipelines.voc", "read_voc", {"year": 2012}),
    "table": ("pipelines.table", "read_table", {}),
}
VALID_ID = re.compile(r"[A-Za-z0-9_./-]+")


@dataclasses.dataclass
class Options:
    dataset: str = option("digits", f"Which set: {', '.join(READERS)}.")
    source: Path | None = option(None, "Folder of the original files; `digits` needs none.")
    data_dir: Path = option(Path("data"), "Where prepared sets lie; this one goes into <data-dir>/<dataset>.")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        Options, argv, module="pipelines.build", description="Turn a set's original files into TFRecords."
    )
    raw = read_raw_set(options.dataset, options.source)
    manifest = build_set(raw, options.data_dir)
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.examples} pictures in {len(split.shards)} shards, {len(split.skipped)} left out"
        )
    print(f"Prepared: {options.data_dir / raw.name}")


def read_raw_set(dataset: str, source: Path | None = None) -> RawSet:
    """The raw set of a name in `READERS`, from the folder of its original files."""
    if dataset not in READERS:
        raise ValueError(f"`--dataset` must be one of {', '.join(READERS)}. Received: {dataset!r}")
    module, function, options = READERS[dataset]
    if dataset == "digits" and source is not None:
        raise ValueError("`--source` does nothing for digits, which are made on the spot. Leave it out.")
    if dataset != "digits" and source is None:
        raise ValueError(f"`--source` must name the folder of the original files of {dataset}.")
    read = getattr(importlib.import_module(module), function)
    return read(**options) if source is None else read(source, **options)


def build_set(raw: RawSet, data_dir: Path) -> "records.Manifest":
    """Write the prepared set `<data_dir>/<raw.name>`; its manifest comes last.

    Every picture is decoded once; one that cannot be is left out, counted and named in the manifest.
    """
    from tqdm import tqdm

    from pipelines import records

    folder = Path(data_dir) / raw.name
    (folder / records.MANIFEST).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, iterate in raw.splits.items():
        samples = sorted(iterate(), key=lambda sample: (records.sort_key(sample.id), sample.id))
        _check_ids(samples, split)
        num_shards = records.count_shards(sum(_encoded_size(sample) for sample in samples))
        by_shard: list[list[Sample]] = [[] for _ in range(num_shards)]
        for sample in samples:
            by_shard[records.shard_of(sample.id, num_shards)].append(sample)
        skipped = list(raw.skipped.get(split, []))
        counts = {kind: [0] * len(raw.classes) for kind in ("present", "difficult", "unknown")}
        shards = []
        bar = tqdm(
            total=len(samples), desc=f"{raw.name} {split}", unit=" pictures", mininterval=0.5, file=sys.stderr
        )
        for shard, part in enumerate(by_shard):
            path = folder / records.shard_name(split, shard, num_shards)
            shards.append(records.write_shard(path, _records(part, counts, skipped, bar)))
        bar.close()
        examples = sum(shard.examples for shard in shards)
        if not examples:
            raise ValueError(f"The split {split} of {raw.name} holds no usable picture ({raw.source}).")
        splits[split] = records.Split(
            folder,
            examples,
            tuple(counts["present"]),
            tuple(counts["difficult"]),
            tuple(counts["unknown"]),
            tuple(shards),
            tuple(skipped),
        )
    manifest = records.Manifest(raw.name, raw.classes, raw.source, raw.licence, splits)
    records.write_manifest(folder, manifest)
    return manifest


def _records(
    samples: list[Sample], counts: dict[str, list[int]], skipped: list[Skip], bar: "tqdm"
) -> Iterator[bytes]:
    """The records of samples whose picture decodes; what the manifest says of them is added up on the way."""
    from pipelines import records

    for sample in samples:
        bar.update()
        try:
            picture = check_picture(_read(sample))
        except BadPicture as error:
            skipped.append(Skip(sample.id, str(error)))
            continue
        for kind, count in counts.items():
            for label in getattr(sample, kind):
                count[label] += 1
        yield records.serialize_record(sample, picture)


class BadPicture(Exception):  # noqa: N818
    """A picture that training must not see; the text says why."""


def check_picture(encoded: bytes) -> "records.Picture":
    """Decode a picture in full, or raise `BadPicture`."""
    from PIL import Image

    from pipelines import records

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as image:
                if image.format not in ("JPEG", "PNG"):
                    raise BadPicture(f"is {image.format}, neither JPEG nor PNG")
                orientation = image.getexif().get(0x0112, 1)
                image.load()
                width, height = image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise BadPicture(f"cannot be decoded: {error}") from error
    if orientation not in range(1, 9):
        orientation = 1  # what viewers do with a value that EXIF does not define
    if orientation >= 5:
        height, width = width, height
    return records.Picture(encoded, height, width, orientation)


def _check_ids(samples: list[Sample], split: str) -> None:
    for before, sample in zip([None, *samples], samples, strict=False):
        if not VALID_ID.fullmatch(sample.id):
            raise ValueError(f"The id {sample.id!r} in {split} has characters other than A-Z a-z 0-9 _ . / -")
        if before is not None and before.id == sample.id:
            raise ValueError(f"The id {sample.id!r} is there twice in {split}.")


def _encoded_size(sample: Sample) -> int:
    return len(sample.image) if isinstance(sample.image, bytes) else sample.image.stat().st_size


def _read(sample: Sample) -> bytes:
    return sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()


if __name__ == "__main__":
    run_command(main)
