"""Compare: `python -m mcar_tf.compare --runs A --to B`. Is a difference in mAP more than the luck of the pictures?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mcar_tf import metrics
from mcar_tf.evaluating.columns import STREAMS
from mcar_tf.runs.folder import command_on
from pipelines.command import load_tensorflow, option, parse_options, run_command

if TYPE_CHECKING:
    from mcar_tf.evaluating.evaluation import Predictions

Stream = Literal["fused", "global", "local"]


@dataclasses.dataclass
class CompareOptions:
    """What `compare` can be told."""

    # fmt: off
    runs: list[Path] = option(dataclasses.MISSING, "Evaluated run folders, or folders that evaluate made in their"
                              " evaluations/: those of one recipe, one a seed.")
    to: list[Path] = option(dataclasses.MISSING, "What to compare to.")
    stream: Stream = option("fused", "Stream of --runs.")
    to_stream: Stream | None = option(None, "Stream of --to (null: the same).")
    resamples: int = option(1000, "Resamplings of the pictures.")
    seed: int = option(0, "Of these.")
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
    folders = [*options.runs, *options.to]
    for folder in folders:
        if not (folder / "predictions.npz").is_file():
            raise FileNotFoundError(
                f"{folder} holds no predictions.npz. Run first: {command_on(folder, 'evaluate')}"
            )
    load_tensorflow()
    from mcar_tf.evaluating.evaluation import read_predictions

    read = [read_predictions(folder / "predictions.npz") for folder in folders]
    first, classes, split = read[0]
    for folder, (predictions, *other) in zip(folders, read, strict=True):
        if other != [classes, split] or not same_truth(predictions, first):
            raise ValueError(f"{folder} was evaluated on other pictures or labels than {folders[0]}.")
    streams = [options.stream] * len(options.runs) + [options.to_stream or options.stream] * len(options.to)
    probs = np.stack([of_stream(found[0], stream) for found, stream in zip(read, streams, strict=True)])
    values, resampled = resample_map(first.labels, first.weights, probs, options.resamples, options.seed)

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


def same_truth(one: "Predictions", other: "Predictions") -> bool:
    """Whether two models looked at the same images and were held to the same labels."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ids", "labels", "weights")
    )


def of_stream(predictions: "Predictions", stream: Stream) -> np.ndarray:
    """A stream's probabilities, (N, C)."""
    return getattr(predictions, STREAMS[stream])


def resample_map(
    labels: np.ndarray, weights: np.ndarray, probs: np.ndarray, resamples: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The mAP of several models on the images, and on images drawn with replacement, the same draws for all models.

    Args:
        labels: (N, C).
        weights: (N, C), 0 where a label doesn't count.
        probs: (M, N, C), of M models.
        resamples: draws, R, of N images each.
        seed: of the draws.

    Returns:
        mAP (M,) and (M, R), in [0, 1].
    """
    from tqdm import tqdm

    values = np.array([metrics.mean_average_precision(labels, p, weights) for p in probs])
    rng = np.random.default_rng(seed)
    resampled = np.empty((len(probs), resamples))
    for r in tqdm(range(resamples), desc="resampling", leave=False, disable=None):
        rows = rng.integers(0, len(labels), len(labels))
        for model, found in enumerate(probs):
            resampled[model, r] = metrics.mean_average_precision(labels[rows], found[rows], weights[rows])
    return values, resampled


if __name__ == "__main__":
    run_command(main)
