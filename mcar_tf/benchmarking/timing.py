"""Time several functions in turn, so that a slow moment of the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

CLASSES = 80  # number of classes of the models built for timing, as in COCO
Times = npt.NDArray[np.float64]


def time_in_turn(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Milliseconds of each function in each round, (rounds,), after two rounds that only trace and warm up.

    A terminal shows a bar over the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in tqdm(range(2 + rounds), "timing", leave=False, unit=" rounds", disable=None):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: np.array(values[2:]) for name, values in times.items()}


def median_interval(values: Times) -> list[float]:
    """A 95 % interval of the median from order statistics, distribution-free (binomial, normal approximation)."""
    ordered = sorted(float(v) for v in values)
    n = len(ordered)
    half = 0.98 * n**0.5
    return [ordered[max(0, int(n / 2 - half))], ordered[min(n - 1, int(n / 2 + half))]]
