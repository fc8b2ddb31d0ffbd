"""Weigh: `python -m mcar_tf.tradeoff --run DIR`. A run in, accuracy over time of every way to use it out."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcar_tf.config import FitConfig, change_without_training
from mcar_tf.exporting.finished_run import find_calibration_split
from mcar_tf.exporting.forms import PRECISIONS, choose_forms
from mcar_tf.models.backbone_table import BACKBONES
from mcar_tf.option_rules import on_command_line
from mcar_tf.runs.folder import command_on, is_run, read_run_config
from mcar_tf.runs.splits import VALIDATION, find_split, split_names
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.files import file_sha256, write_bytes
from pipelines.manifest import load_manifest
from pipelines.words import percent, spell

if TYPE_CHECKING:
    from mcar_tf.benchmarking.tradeoff import Point
    from mcar_tf.runs.loading import Run

# Options to change in a run, and the rules of fusion to try with each of these changes.
Ways = Sequence[tuple[dict[str, Any], Sequence[str]]]

DATA, TRIED, TIME = "data", "what is tried", "time"
FEW = 200  # pictures
CALIBRATION_PICTURES = 200  # as many as `export` takes
# A run's options that have another name here: of ours, and of the plain backbone.
OUR_NAMES = {"image_size": "--image-sizes", "local_size": "--local-sizes", "tau": "--taus"}
PLAIN_NAMES = {"image_size": "--baseline-sizes"}


@dataclasses.dataclass
class TradeoffOptions:
    """The options of `tradeoff`."""

    # fmt: off
    run: Path = option(dataclasses.MISSING, "The run folder.", group=DATA)
    baseline: Path | None = option(None, "Run folder of the plain backbone to compare with (default: the one that"
                                   " fit --compare-baseline left in the run, if there is one).", group=DATA)
    split: str | None = option(None, "Split to measure accuracy on (default: the run's validation split; without one,"
                               " its eval-split).", group=DATA)
    data_dir: Path | None = option(None, "Where prepared sets lie (default: where they lay for the run).", group=DATA)
    top_n: list[int] = option([1, 2, 4], "How many regions to try; one look alone is always tried.", group=TRIED)
    image_sizes: list[int] | None = option(None, "Sides of pictures to try, in px; a glance is reduced by the run's"
                                           " factor (default: the run's size, and one about a fifth larger).",
                                           group=TRIED)
    local_sizes: list[int] | None = option(None, "Sides of the regions' crops to try, in px (default: the run's).",
                                           group=TRIED)
    taus: list[float] | None = option(None, "Thresholds of the localizer to try (default: the run's).", group=TRIED)
    fusions: list[str] = option(["max", "mean"], "Rules of fusion to try.", group=TRIED)
    precisions: list[str] = option(["float32"], f"Precisions of the TFLite file to try, some of"
                                   f" {', '.join(PRECISIONS)}, with the plain backbone too. All but float32 are"
                                   " measured through LiteRT, one picture at a time.", group=TRIED)
    look_shares: list[float] = option([0.1, 0.25, 0.5], "Shares of the pictures to look at again, those that the"
                                      " first look leaves most in doubt. All pictures are always tried.", group=TRIED)
    baseline_sizes: list[int] | None = option(None, "Sides of pictures to try with the plain backbone, in px"
                                              " (default: its own, one about a fifth larger, and the run's"
                                              " glance-size).", group=TRIED)
    budget_ms: float | None = option(None, "Most milliseconds that a picture may take, measured here (default: any).",
                                     group=TIME)
    rounds: int = option(21, "How many times each way is timed, in turn with the others.", group=TIME)
    threads: int = option(1, "Threads that LiteRT computes with.", group=TIME)
    out_dir: Path | None = option(None, "Where the results go (default: <run>/tradeoff).", group=DATA)
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        TradeoffOptions,
        argv,
        module="mcar_tf.tradeoff",
        description="Accuracy and time of all that can be changed of a run without training, beside the plain"
        " backbone. What was measured is kept, so that a second call goes on where the first ended.",
    )
    config = read_run_config(options.run)
    check_options(options, config)
    manifest = load_manifest(options.data_dir or config.data_dir, config.dataset)
    name = options.split or (VALIDATION if VALIDATION in split_names(config, manifest) else config.eval_split)
    split = find_split(config, manifest, name)
    baseline = options.baseline or (options.run / "baseline" if is_run(options.run / "baseline") else None)
    plain = read_run_config(baseline) if baseline else None
    folder = options.out_dir or options.run / "tradeoff"
    regions = regions_to_try(options, len(manifest.classes))
    if "int8" in options.precisions:
        find_calibration_split(config, manifest)  # an error comes before anything is measured

    load_tensorflow()
    from mcar_tf.benchmarking import tradeoff as library
    from mcar_tf.exporting.pictures import calibration_pictures
    from mcar_tf.reporting.tradeoffs import plot_tradeoff
    from mcar_tf.runs.device import say_device

    ways = ways_to_try(options, regions, config, plain)
    say_device(f"{split.examples:,} pictures of {name}", str(options.run))
    folders = {library.OURS: options.run} | ({library.PLAIN: baseline} if baseline else {})
    identity = {kind: file_sha256(path / "checkpoints" / "last.weights.h5") for kind, path in folders.items()}
    identity["split"] = f"{manifest.name}, {name}, {split.examples}"
    identity["look shares"] = " ".join(f"{share:g}" for share in options.look_shares)
    folder.mkdir(parents=True, exist_ok=True)
    points = library.read_points(folder / "tradeoff.json", identity)

    def calibration(run: "Run") -> Iterator[Any]:
        return calibration_pictures(
            find_calibration_split(run.config, manifest), run.model, CALIBRATION_PICTURES
        )

    files = library.Files(folders, calibration)

    def note(point: "Point") -> None:
        points.append(point)
        library.write_points(folder / "tradeoff.json", identity, points)
        print(f"{describe(point):60} {percent(point.mean_ap):>6} mAP", flush=True)

    for kind, path in folders.items():
        library.measure_accuracy(
            kind, path, ways[kind], manifest, split, points, note, files, options.look_shares
        )
    asked = [wanted for one in ways.values() for wanted in all_changes(one)]
    points[:] = [point for point in points if point.way in asked and point.kind in folders]
    print(
        f"timing {len({point.looks for point in points})} ways in turn, {options.rounds} rounds", flush=True
    )
    points[:] = library.measure_times(points, files, options.rounds, options.threads)
    library.write_points(folder / "tradeoff.json", identity, points)
    plain_front = library.pareto_front([point for point in points if point.kind == library.PLAIN])
    figure = plot_tradeoff(points, library.pareto_front(points), plain_front, name)
    write_bytes(folder / "tradeoff.png", figure)
    print_result(options, points, folder)
    if split.examples < FEW:
        print(
            f"Measured on {split.examples} pictures: with fewer than {FEW}, a few points of mAP are chance."
        )


def check_options(options: TradeoffOptions, config: FitConfig) -> None:
    """Refuse options that can't be measured, or that would have no effect."""
    if config.top_n == 0:
        raise ValueError(
            f"{options.run} is a plain backbone (top-n 0). Give a run that looks twice; this one: --baseline."
        )
    if not options.top_n or min(options.top_n) < 1:
        raise ValueError(f"`--top-n` takes numbers of regions from 1 on. Received: {options.top_n}")
    if wrong := [rule for rule in options.fusions if rule not in ("max", "mean")]:
        raise ValueError(f"`--fusions` takes max and mean. Received: {wrong[0]}")
    if wrong_shares := [share for share in options.look_shares if not 0.0 < share < 1.0]:
        raise ValueError(f"`--look-shares` takes shares between 0 and 1. Received: {wrong_shares[0]:g}")
    for form in choose_forms(["tflite"], options.precisions):
        form.check_installed()
    if options.taus and config.localizer != "threshold":
        raise ValueError(f"--taus does nothing with the run's localizer, {config.localizer}. Leave it out.")
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"`--{name}` must be at least 1. Received: {getattr(options, name)}")
    if options.budget_ms is not None and not 0 < options.budget_ms < math.inf:
        raise ValueError(f"`--budget-ms` must be positive. Received: {options.budget_ms:g}")
    if options.baseline_sizes and not (options.baseline or is_run(options.run / "baseline")):
        raise ValueError(
            "--baseline-sizes does nothing without a run of the plain backbone: give --baseline."
        )
    if options.baseline and read_run_config(options.baseline).top_n:
        raise ValueError(f"--baseline {options.baseline} looks at regions: give a run with top-n 0.")


def regions_to_try(options: TradeoffOptions, classes: int) -> list[int]:
    """The numbers of regions: those asked for, or the default ones that a set of so many classes has.

    Raises:
        ValueError: there are more regions than classes.
    """
    if options.top_n == TradeoffOptions(run=options.run).top_n:
        return [regions for regions in options.top_n if regions <= classes]
    if max(options.top_n) > classes:
        raise ValueError(
            f"`--top-n` must lie in [1, {classes}], the number of classes. Received: {max(options.top_n)}"
        )
    return options.top_n


def ways_to_try(
    options: TradeoffOptions, regions: Sequence[int], config: FitConfig, plain: FitConfig | None
) -> dict[str, Ways]:
    """All ways to use the run, and the plain backbone if there is one, by kind of point.

    Raises:
        ValueError: a value is not allowed, or sizes do not go together; the error names the option as it is typed.
    """
    from mcar_tf.benchmarking import tradeoff as library

    ours = library.ways_to_look(
        regions,
        own_sizes(options, config),
        options.local_sizes or [None],
        options.taus or [None],
        options.fusions,
        options.precisions,
    )
    ways: dict[str, Ways] = {library.OURS: list(ours)}
    check_ways(ways[library.OURS], config, OUR_NAMES)
    if plain is not None:
        ways[library.PLAIN] = [
            ({"image_size": size, **library.in_precision(precision)}, ())
            for precision in options.precisions
            for size in plain_sizes(options, plain, config.glance_size)
        ]
        check_ways(ways[library.PLAIN], plain, PLAIN_NAMES)
    return ways


def check_ways(ways: Ways, config: FitConfig, names: Mapping[str, str]) -> None:
    """Refuse ways that a run can't be used in; the error calls its options by these names."""
    from mcar_tf.benchmarking.tradeoff import of_model

    for changes in all_changes(ways):
        change_without_training(
            config, of_model(changes), lambda name: names.get(name, on_command_line(name))
        )


def own_sizes(options: TradeoffOptions, config: FitConfig) -> list[dict[str, int]]:
    """The changes of `image_size`, and of `glance_size` beside it, with which to measure the run.

    Raises:
        ValueError: a size can't be reduced to a glance by the run's factor.
    """
    factor = config.image_size // (config.glance_size or config.image_size)
    sizes = sorted({*(options.image_sizes or [config.image_size, larger(config.image_size, factor)])})
    least = factor * BACKBONES[config.backbone].min_size
    for size in sizes:
        if factor > 1 and (size % factor or size < least):
            raise ValueError(
                f"`--image-sizes` takes multiples of {factor}, by which the run reduces its glance, from {least} px"
                f" on; the nearest is {max(least, round(size / factor) * factor)}. Received: {size}"
            )
    glances = [{"glance_size": size // factor} if config.glance_size else {} for size in sizes]
    return [
        {} if size == config.image_size else {"image_size": size, **glance}
        for size, glance in zip(sizes, glances, strict=True)
    ]


def plain_sizes(options: TradeoffOptions, plain: FitConfig, glance_size: int | None) -> list[int]:
    """The image sizes in px at which to measure the plain backbone."""
    own = plain.image_size
    return options.baseline_sizes or sorted({own, larger(own), glance_size or own})


def larger(size: int, factor: int = 1) -> int:
    """A size at least a fifth larger, at which a network often recognizes more than at the one that it learnt from.

    It is a multiple of 32 px, the stride of most networks, after a reduction by `factor` too (Touvron et al., Fixing
    the train-test resolution discrepancy, NeurIPS 2019).
    """
    step = 32 * factor
    return -(-6 * size // (5 * step)) * step


def all_changes(ways: Ways) -> list[dict[str, Any]]:
    """The changes of every requested combination, with its rule of fusion if there is one."""
    return [
        one
        for changes, fusions in ways
        for one in ([changes | {"fusion": fusion} for fusion in fusions] or [changes])
    ]


def describe(point: "Point") -> str:
    """A point's options in words."""
    if point.kind == "plain":
        return f"plain backbone, {point.title}"
    share = f", for {percent(point.share)} % of pictures" if "look_doubt" in point.changes else ""
    return f"{point.title}{share}"


def print_result(options: TradeoffOptions, points: Sequence["Point"], folder: Path) -> None:
    """Print the table, what to export within the budget, and whether the plain backbone is as good in less time."""
    from mcar_tf.benchmarking.tradeoff import as_good_for_less, best_within, pareto_front

    front = pareto_front(points)
    width = max(len(describe(p)) for p in points)
    decimals = 1 if min(p.ms for p in points) >= 5 else 2  # of a tiny network, all would be 0.8
    print(f"\n{'':{width}}{'ms':>9}{'mAP, %':>9}")
    for point in sorted(points, key=lambda p: p.ms):
        mark = "  on the front" if point in front else ""
        print(f"{describe(point):{width}}{point.ms:9.{decimals}f}{percent(point.mean_ap):>9}{mark}")
    best = best_within(points, options.budget_ms)
    if best is None:
        fastest = min(p.ms for p in points)
        print(
            f"\nNothing fits into --budget-ms {options.budget_ms:g}: the fastest takes {fastest:.{decimals}f} ms."
        )
    else:
        words = " ".join(f"--{spell(name)} {value}" for name, value in best.changes.items())
        print(f"\nbest{f' within {options.budget_ms:g} ms' if options.budget_ms else ''}: {describe(best)}")
        print(f"  {command_on(options.run, 'export')} {words}")
        if "look_doubt" in best.changes:
            whole = next(p.ms for p in points if p.changes == best.way and p.kind == best.kind)
            print(
                f"That time is the mean over the pictures, for an app that calls the file's `global_only` first and"
                " looks again only where that leaves doubt (docs/phones.md)."
                f" Its `mcar` always takes {whole:.{decimals}f} ms."
            )
        rival = as_good_for_less(points, best)
        if rival:
            print(
                f"But the {describe(rival)} is as good or better ({percent(rival.mean_ap)}) in"
                f" {rival.ms:.{decimals}f} ms: here a second look is not worth its price."
            )
    print(f"written to {folder}: tradeoff.json, tradeoff.png")


if __name__ == "__main__":
    run_command(main)
