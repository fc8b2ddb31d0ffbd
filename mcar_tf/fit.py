"""Train: `python -m mcar_tf.fit --dataset coco`. A prepared set in, a run folder out."""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mcar_tf.config import FitConfig, parse_fit_config
from mcar_tf.evaluating import columns
from mcar_tf.option_rules import NO_SPLIT
from mcar_tf.runs.folder import command_on, is_run
from mcar_tf.training.data import check_against_data, describe_data, limit_regions, prepare_data
from mcar_tf.training.recipes import recipe_line
from mcar_tf.training.run import run_to_end
from mcar_tf.training.signals import stop_between_steps
from mcar_tf.training.workers import find_workers
from pipelines.command import Terminated, run_command
from pipelines.words import counted, next_steps, typed


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_fit_config(argv)
    manifest = prepare_data(config)
    config = limit_regions(config, manifest)
    check_against_data(config, manifest)
    workers = find_workers(config.strategy)
    if workers.leads:
        print("\n".join(describe_data(config, manifest)), flush=True)
        if config.recipe:
            print(recipe_line(vars(config), vars(FitConfig())), flush=True)
    with (
        stop_between_steps() as stopping,
        telling_how_to_go_on(config, argv, workers.leads),
        workers.folder(config.run_dir) as folder,
    ):
        metrics, seconds = run_to_end(config, folder, manifest, stopping, workers)
        name = f"MCAR, {counted(config.top_n, 'region')}" if config.top_n else f"plain {config.backbone}"
        rows = stream_rows(name, config, metrics)
        times = [f"{name.split(',')[0]} {seconds:.0f} s"]
        if config.compare_baseline:
            print(f"\nbaseline: the plain {config.backbone} by the same recipe")
            plain = config.plain_backbone()
            metrics, seconds = run_to_end(plain, folder / "baseline", manifest, stopping, workers)
            rows = stream_rows("baseline", plain, metrics) + rows
            times.append(f"baseline {seconds:.0f} s")
    if workers.leads:
        print_closing(config, folder, rows, times)


@contextlib.contextmanager
def telling_how_to_go_on(config: FitConfig, argv: Sequence[str] | None, leads: bool) -> Iterator[None]:
    """If a signal ends the `with` block, print the command that goes on with the run."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if leads and is_run(config.run_dir):
            words = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--overwrite"]
            words += [] if "--resume" in words else ["--resume"]
            print(f"\nTo go on: {typed('mcar_tf.fit')} {shlex.join(words)}", file=sys.stderr)
        raise


class Row(NamedTuple):
    """A row of the closing table: what answers, what an answer costs in plain looks, and how good it is."""

    name: str
    cost: float
    metrics: dict[str, Any]

    @property
    def mean_ap(self) -> float:
        """mAP, -1 if it is unknown."""
        known = self.metrics.get("mAP")
        return -1.0 if known is None else known


def cost_of(config: FitConfig, stream: str) -> float:
    """What a stream's answer costs, by arithmetic, in looks of the plain backbone at `image_size`.

    (G² + N L²) / S² for images of S px, first seen in G px, and N regions of L px. The global stream's answer
    needs the first look alone, the local one's and the fused one both.
    """
    glance = config.glance_size or config.image_size
    regions = 0 if stream == "global" else config.top_n
    return (glance**2 + regions * (config.local_size or glance) ** 2) / config.image_size**2


def stream_rows(name: str, config: FitConfig, metrics: dict[str, Any]) -> list[Row]:
    """Rows of the closing table: one for the plain backbone, one per stream for MCAR."""
    if config.top_n == 0:
        return [Row(name, cost_of(config, "global"), metrics.get("global", {}))]
    return [
        Row(f"{name}: {title}", cost_of(config, stream), metrics.get(stream, {}))
        for stream, title in columns.STREAM_TITLES.items()
    ]


def print_closing(config: FitConfig, folder: Path, rows: list[Row], times: list[str]) -> None:
    """Print the result, where everything is stored, and what to do next."""
    measured = config.eval_split != NO_SPLIT
    if measured:
        print_result(config, rows)
    print(f"trained and evaluated in: {', '.join(times)}")
    if config.top_n and measured:
        print(f"where it looked in the first images of {config.eval_split}: {folder / 'regions.png'}")
    print(f"\nThe run lies in {folder}: history.csv, metrics.json, checkpoints, TensorBoard logs.")
    print(
        next_steps(
            (f"{command_on(folder, 'predict')} --images IMAGES --draw", "pictures of what it sees"),
            (command_on(folder, "evaluate"), "every metric, other sizes and regions"),
            (command_on(folder, "export"), "a SavedModel and a TFLite file"),
            (f"tensorboard --logdir {shlex.quote(str(folder))}", "curves and regions by epoch"),
        )
    )


def print_result(config: FitConfig, rows: list[Row]) -> None:
    """Print the table of the run's metrics, below those of its baseline if there is one."""
    title = f"{config.dataset}, {config.eval_split}, in %"
    width = max(len(name) for name in [title, *(row.name for row in rows)])
    shown = columns.measures(columns.Detail.SHORT)
    print(f"\n{title:{width}}" + "".join(f"{head:>8}" for head in ("cost", *columns.titles(shown))))
    for row in rows:
        cells = (f"{row.cost:.2f}", *columns.cells(shown, row.metrics))
        print(f"{row.name:{width}}" + "".join(f"{cell:>8}" for cell in cells))
    most = "at most, " if config.look_band or config.look_doubt else ""
    print(f"cost: of an answer, {most}in looks of the plain backbone at {config.image_size} px")
    answer = rows[-1]
    better = [row for row in rows if row.cost < answer.cost and row.mean_ap > answer.mean_ap]
    if better:
        best = max(better, key=lambda row: row.mean_ap)
        is_first_look = best.name.endswith(columns.STREAM_TITLES["global"])
        advice = ": evaluate, predict and export take --top-n 0." if is_first_look else "."
        print(f"Here {best.name} is better than looking twice, for less{advice}")
    if rows[0].metrics.get("mAP") is None:
        print(
            f"No picture of {config.eval_split} is known to show any class, so nothing can be measured on it."
        )


if __name__ == "__main__":
    run_command(main)
