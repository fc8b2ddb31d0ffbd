"""Original files in, a prepared set out: python -m pipelines.build --dataset coco --source DIR --data-dir DIR."""

import dataclasses
from collections.abc import Sequence

from pipelines.building.outcome import BUILDING, BuildOptions, print_outcome, print_plan, read_to_build
from pipelines.building.sets import build_set
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.manifest import load_manifest


@dataclasses.dataclass
class Options(BuildOptions):
    processes: int | None = option(
        None, "Number of processes that read and decode (default: one per core).", group=BUILDING
    )
    verify: bool = option(
        False, "Build nothing: read every shard of the set and compare it with its checksum.", group=BUILDING
    )
    stats: bool = option(False, "Build nothing: print and draw what is in the set.", group=BUILDING)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        Options, argv, module="pipelines.build", description="Turn a set's original files into TFRecords."
    )
    if options.verify or options.stats:
        _inspect(options)
        return
    raw = read_to_build(options)
    if options.dry_run:
        print_plan(raw)
        return
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


def _inspect(options: Options) -> None:
    name = options.set_name
    load_tensorflow()
    if options.verify:
        from pipelines.verify import verify_set

        print(verify_set(options.data_dir, name))
    if options.stats:
        from pipelines.stats import draw_statistics, print_statistics, read_statistics

        manifest = load_manifest(options.data_dir, name)
        statistics = {split: read_statistics(manifest, split) for split in manifest.splits}
        print_statistics(manifest, statistics)
        print(f"Drawn: {draw_statistics(manifest, statistics, options.data_dir / name / 'stats.png')}")


if __name__ == "__main__":
    run_command(main)
