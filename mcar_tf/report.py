"""Report: `python -m mcar_tf.report --run DIR`. An evaluated run in, `report.html` out, to be opened anywhere."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mcar_tf.evaluating.comparing import check_comparable
from mcar_tf.reporting import page, picture_sections, sections
from mcar_tf.reporting.choosing import read_images, select_pictures
from mcar_tf.reporting.evaluated_run import name_runs, read_evaluated_run
from mcar_tf.runs.folder import command_on
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import write_text
from pipelines.words import next_steps


@dataclasses.dataclass
class ReportOptions:
    """The options of `report`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder, on which evaluate has been run.")
    compare: list[Path] = option([], "Other runs on the same pictures, the baseline first (default: <run>/baseline,"
                                 " if it has been evaluated).")
    data_dir: Path | None = option(None, "Folder of the prepared sets (default: the one that the run used).")
    pictures: int = option(12, "Number of pictures in each gallery.")
    threshold: float | None = option(None, "Smallest probability at which a class is predicted (default: each class's"
                                     " own, as calibrate found it for the run's weights, or 0.6).")
    seed: int = option(0, "Seed that decides which pictures the gallery shows.")
    out: Path | None = option(None, "File for the report (default: <run>/report.html).")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        ReportOptions,
        argv,
        module="mcar_tf.report",
        description="One page about a run: how good it is, where it fails, what it looked at; beside other runs.",
    )
    if options.pictures < 1:
        raise ValueError(f"`pictures` must be at least 1. Received: {options.pictures}")
    if options.seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: {options.seed}")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise ValueError(f"`threshold` must lie in [0, 1]. Received: {options.threshold}")
    folders = [options.run, *options.compare]
    baseline = options.run / "baseline"
    if not options.compare and (baseline / "predictions.npz").is_file():
        folders.append(baseline)
    names = name_runs(folders)
    runs = [read_evaluated_run(f, name, options.threshold) for f, name in zip(folders, names, strict=True)]
    check_comparable({run.folder: (run.predictions, run.classes) for run in runs})
    run = runs[0]

    load_tensorflow()
    selection = select_pictures(run, options.pictures, options.seed)
    images = read_images(run, options.data_dir or run.config.data_dir, selection.rows)
    content = page.page(
        f"{run.folder.name}: {run.config.dataset}, {run.split}",
        sections.summary_parts(runs),
        [
            ("Beside other runs", sections.comparison_parts(runs)),
            ("Training", sections.training_parts(runs)),
            ("Classes", sections.class_parts(runs)),
            ("What it confuses", sections.confusion_parts(run)),
            ("Worst errors", picture_sections.error_parts(run, selection, images)),
            ("Where it looks", picture_sections.gallery_parts(run, selection, images)),
            ("How it was made", sections.provenance_parts(run)),
        ],
    )
    out = options.out or options.run / "report.html"
    write_text(out, content)
    print(f"thresholds: {run.decided_by}")
    print(f"written: {out} ({len(content) / 2**20:.1f} MB; open it in a browser)")
    print(
        next_steps(
            (command_on(options.run, "audit"), "the labels that are likely to be wrong or missing"),
            (command_on(options.run, "tradeoff"), "which number and size of looks is worth its time"),
        )
    )


if __name__ == "__main__":
    run_command(main)
