"""Audit: `python -m mcar_tf.audit --run DIR`. Labels that are likely to be wrong or missing, with pictures, out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mcar_tf.auditing.cases import check_cleanlab, find_cases
from mcar_tf.auditing.runs import check_apart, find_runs, predict_run
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.words import next_steps, typed


@dataclasses.dataclass
class AuditOptions:
    """The options of `audit`."""

    # fmt: off
    run: Path | None = option(None, "The run folder; labels are compared with what it sees in pictures that it never"
                                    " learnt from.")
    runs: list[Path] = option([], "Instead of --run: several run folders, one for each fold of the set.")
    split: str | None = option(None, "Split whose labels are audited (default: each run's eval-split).")
    data_dir: Path | None = option(None, "Folder of the prepared sets (default: the one that the run used).")
    cases: int = option(1000, "Most cases that are written, the likeliest mistakes first.")
    pictures: int = option(100, "How many of them the page shows.")
    out_dir: Path | None = option(None, "Folder for the results (default: <run>/audit, of the first run).")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        AuditOptions,
        argv,
        module="mcar_tf.audit",
        description="Labels of a set that are likely to be wrong or missing, by cleanlab: a page, a CSV, and files"
        " for Label Studio and FiftyOne.",
    )
    folders = check_options(options)
    check_cleanlab()
    runs = find_runs(folders, options.split, options.data_dir)
    out_dir = options.out_dir or folders[0] / "audit"

    from mcar_tf.auditing.writing import check_place, write_audit

    check_place(out_dir)
    load_tensorflow()
    parts = []
    for run in runs:
        print(f"{run.folder}: {run.split.examples:,} pictures of {run.split_name}", flush=True)
        parts.append(predict_run(run, options.data_dir))
    check_apart(runs, parts)
    found = find_cases(parts)
    classes = runs[0].manifest.classes
    wrong = sum(case.kind == "wrong" for case in found)
    pictures = sum(len(part) for part in parts)
    print(
        f"{pictures:,} pictures, {pictures * len(classes):,} labels: {wrong:,} likely wrong,"
        f" {len(found) - wrong:,} likely missing"
    )
    written = write_audit(out_dir, runs, parts, found, cases=options.cases, pictures=options.pictures)
    print(f"written to {out_dir}: {', '.join(written)}. Open {out_dir / written[0]} in a browser.")
    build = f"{typed('pipelines.build')} --dataset table --source TABLE --name {runs[0].manifest.name} --overwrite"
    print(next_steps((build, "the set again, once you have put its labels right; then fit")))


def check_options(options: AuditOptions) -> list[Path]:
    """The run folders; refuses what makes no sense."""
    if (options.run is None) == (not options.runs):
        raise ValueError("Give --run with one run folder, or --runs with several.")
    for name in ("cases", "pictures"):
        if getattr(options, name) < 1:
            raise ValueError(f"`--{name}` must be at least 1. Received: {getattr(options, name)}")
    return options.runs or [options.run]  # type: ignore[list-item]


if __name__ == "__main__":
    run_command(main)
