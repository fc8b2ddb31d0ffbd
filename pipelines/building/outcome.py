"""The options that every command that builds has, and what it prints in the end."""

import dataclasses
from pathlib import Path
from typing import Any

from pipelines.building.sets import refuse_complete
from pipelines.building.shards import OnBadImage
from pipelines.command import option
from pipelines.manifest import MANIFEST, Manifest
from pipelines.pictures import MAX_MEGAPIXELS, MOST_MEGAPIXELS
from pipelines.readers.registry import ReadingOptions, read_by_options
from pipelines.samples import RawSet


@dataclasses.dataclass
class BuildOptions(ReadingOptions):
    """What is to be built, from where, and into which folder."""

    data_dir: Path = option(Path("data"), "Where prepared sets lie; this one goes into <data-dir>/<dataset>.")
    on_bad_image: OnBadImage = option("skip", "What to do about a picture that cannot be used: skip or stop.")
    max_megapixels: float = option(
        MAX_MEGAPIXELS, f"Larger pictures count as bad, at most {MOST_MEGAPIXELS}."
    )
    overwrite: bool = option(False, "Build a set anew that is there already.")


def read_to_build(options: BuildOptions, **more: Any) -> RawSet:
    """The raw set that the options name, unless it has been built; `more` are options of its reader."""
    if not options.overwrite:  # said before anything is read or downloaded
        refuse_complete(options.data_dir / options.set_name)
    return read_by_options(options, **more)


def print_outcome(manifest: Manifest, data_dir: Path) -> None:
    """Tell how many pictures are in a set that was built, and which were left out."""
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.examples:,} pictures in {len(split.shards)} shards, {len(split.skipped):,} left out"
        )
        for skip in split.skipped[:3]:
            print(f"  left out: {skip.id} {skip.why}")
        if len(split.skipped) > 3:
            print(f"  ... all are in {data_dir / manifest.name / MANIFEST}")
    print(f"Prepared: {data_dir / manifest.name}")
