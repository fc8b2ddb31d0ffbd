"""The same build on Apache Beam, for sets that outgrow one machine: python -m pipelines.beam.

    python -m pipelines.beam --dataset table --source DIR --data-dir DIR -- --runner=FlinkRunner --parallelism=64

Readers, records, shards and manifest are those of `pipelines.build`, to the byte, whatever runner is used.
"""

import sys
from collections.abc import Sequence

from pipelines.building.outcome import BuildOptions, print_outcome, print_plan, read_to_build
from pipelines.command import parse_options, run_command


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    mark = words.index("--") if "--" in words else len(words)
    ours, theirs = words[:mark], words[mark + 1 :]
    options = parse_options(
        BuildOptions,
        ours,
        module="pipelines.beam",
        description="Turn a set's original files into TFRecords on Apache Beam. What follows `--` is for Beam.",
    )
    for name in ("source", "images"):  # workers run in other folders
        path = getattr(options, name)
        if path is not None and path.exists():
            setattr(options, name, path.absolute())
    # Looking for all pictures here, one after the other, would take longer than the build, so the workers do it.
    more = {"check_files": False} if options.dataset == "table" else {}
    raw = read_to_build(options, **more)
    if options.dry_run:
        print_plan(raw)
        return
    from pipelines.building.on_beam import build_set_on_beam

    manifest = build_set_on_beam(
        raw,
        options.data_dir,
        theirs,
        on_bad_image=options.on_bad_image,
        max_megapixels=options.max_megapixels,
        overwrite=options.overwrite,
    )
    print_outcome(manifest, options.data_dir)


if __name__ == "__main__":
    run_command(main)
