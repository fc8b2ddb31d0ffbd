"""Compare: `python -m mcar_tf.compare --runs A --to B`. Is a difference in mAP more than the luck of the pictures?"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mcar_tf.evaluating.comparing import check_comparable, resample_map
from mcar_tf.evaluating.predictions_file import read_predictions
from mcar_tf.runs.folder import command_on, is_run
from pipelines.command import option, parse_options, run_command
from pipelines.words import next_steps

Stream = Literal["fused", "global", "local"]


@dataclasses.dataclass
class CompareOptions:
    """The options of `compare`."""

    # fmt: off
    runs: list[Path] = option(dataclasses.MISSING, "Evaluated run folders, or folders in their evaluations/, all"
                              " of the same recipe, one per seed.")
    to: list[Path] = option(dataclasses.MISSING, "Folders of the same kind to compare them to.")
    stream: Stream = option("fused", "Stream of --runs that is compared.")
    to_stream: Stream | None = option(None, "Stream of --to that is compared (default: the same).")
    resamples: int = option(1000, "How often the pictures are resampled for the intervals.")
    seed: int = option(0, "Seed of the resampling.")
    # fmt: on


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        CompareOptions,
        argv,
        module="mcar_tf.compare",
        description="The difference in mAP between two recipes, each the mean of its runs, and its 95 % interval by a"
        " paired bootstrap over the images.",
    )
    if options.resamples < 100:
        raise ValueError(f"`resamples` must be at least 100. Received: {options.resamples}")
    if options.seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: {options.seed}")
    folders = [*options.runs, *options.to]
    for folder in folders:
        if not (folder / "predictions.npz").is_file():
            raise FileNotFoundError(
                f"{folder} holds no predictions.npz. Run first: {command_on(folder, 'evaluate')}"
            )
    read = [read_predictions(folder / "predictions.npz") for folder in folders]
    check_comparable({f: (found.predictions, found.classes) for f, found in zip(folders, read, strict=True)})
    first, split = read[0].predictions, read[0].split
    streams = [options.stream] * len(options.runs) + [options.to_stream or options.stream] * len(options.to)
    models = [(found.predictions, stream) for found, stream in zip(read, streams, strict=True)]
    values, resampled = resample_map(models, options.resamples, options.seed)

    count = len(options.runs)
    print(f"{split}, {len(first)} images: mAP, mean, and of each run")
    for name, stream, part in (
        ("runs", options.stream, values[:count]),
        ("to", streams[-1], values[count:]),
    ):
        print(f"{name:4} {stream:6} {100 * part.mean():7.2f}   {'  '.join(f'{100 * v:.2f}' for v in part)}")
    differences = 100 * (resampled[:count].mean(axis=0) - resampled[count:].mean(axis=0))
    low, high = np.percentile(differences, [2.5, 97.5])
    print(
        f"difference  {100 * (values[:count].mean() - values[count:].mean()):+7.2f}   95 % of {options.resamples:,}"
        f" resamplings of the images: {low:+.2f} to {high:+.2f}"
    )
    one, *others = dict.fromkeys(folders)
    if others and all(is_run(folder) for folder in folders):
        compared = f"{command_on(one, 'report')} --compare {shlex.join(map(str, others))}"
        print(next_steps((compared, "all of them on one page")))


if __name__ == "__main__":
    run_command(main)
