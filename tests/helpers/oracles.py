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


def spread_interval(marginal: np.ndarray, spread: float) -> tuple[float, float]:
    """Mean +- spread standard deviations of the squared, min-max normalized marginal, in float64 pixels."""
    values = marginal.astype(np.float64)
    length, low, high = len(values), values.min(), values.max()
    if low == high:
        return length / 8, 7 * length / 8
    density = ((values - low) / (high - low)) ** 2
    middles = np.arange(length) + 0.5
    mean = np.average(middles, weights=density)
    deviation = math.sqrt(np.average((middles - mean) ** 2, weights=density))
    start, stop = max(mean - spread * deviation, 0.0), min(mean + spread * deviation, float(length))
    shortest = length / 8
    if stop - start < shortest:
        start = min(max((start + stop - shortest) / 2, 0.0), length - shortest)
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


def csra(maps: np.ndarray, temperature: float, lam: float) -> np.ndarray:
    """Class-specific residual attention, (B, h, w, C) -> (B, C), class by class in float64."""
    logits = np.zeros((len(maps), maps.shape[-1]))
    for image, label in np.ndindex(*logits.shape):
        cells = maps[image, :, :, label].astype(np.float64).ravel()
        if math.isinf(temperature):
            attention = cells.max()
        else:
            weights = [math.exp(temperature * (cell - cells.max())) for cell in cells]
            attention = sum(w * cell for w, cell in zip(weights, cells, strict=True)) / sum(weights)
        logits[image, label] = cells.mean() + lam * attention
    return logits


def asymmetric(labels, logits, weights, gamma_positive, gamma_negative, margin) -> float:
    """Asymmetric loss, label by label in float64."""
    total = 0.0
    for y, x, weight in zip(np.ravel(labels), np.ravel(logits), np.ravel(weights), strict=True):
        p = 1 / (1 + math.exp(-float(x)))
        shifted = max(p - margin, 0.0)
        total -= weight * y * (1 - p) ** gamma_positive * math.log(p)
        total -= weight * (1 - y) * shifted**gamma_negative * math.log(1 - shifted)
    return total / np.size(labels)
