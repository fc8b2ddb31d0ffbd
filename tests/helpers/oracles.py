"""Slow numpy definitions that the fast forms are held to."""

import math

import numpy as np


def find_interval(marginal: np.ndarray, tau: float) -> tuple[int, int]:
    """The interval rule of docs/method.md, word by word, for one marginal (L,) float32."""
    length = len(marginal)
    if tau == 0:
        return 0, length
    lowest, highest = marginal.min(), marginal.max()
    if lowest == highest:
        start, stop = math.ceil(length / 8), math.ceil(7 * length / 8)
    else:
        above = (marginal - lowest) / (highest - lowest) >= np.float32(tau)
        runs, start = [], None
        for i in range(length + 1):
            if i < length and above[i]:
                start = i if start is None else start
            elif start is not None:
                if highest in marginal[start:i]:
                    runs.append((start, i))
                start = None
        start, stop = max(runs, key=lambda run: run[1] - run[0])  # the first of the widest
    shortest = math.ceil(length / 8)
    if stop - start < shortest:
        start = min(max((start + stop - shortest) // 2, 0), length - shortest)
        stop = start + shortest
    return start, stop


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with aligned corners, (h, w, ...) -> (height, width, ...), in float64."""
    for axis, length in ((0, height), (1, width)):
        size = image.shape[axis]
        position = np.arange(length) * (size - 1) / (length - 1) if length > 1 else np.zeros(1)
        low = np.minimum(np.floor(position).astype(int), size - 1)
        high = np.minimum(low + 1, size - 1)
        shape = [1] * image.ndim
        shape[axis] = length
        part = (position - low).reshape(shape)
        image = (1 - part) * np.take(image, low, axis) + part * np.take(image, high, axis)
    return image.astype(np.float64)
