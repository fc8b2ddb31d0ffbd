"""Scenes of real handwritten digits, made on the spot: the example set that needs no download.

Each scene holds one to four digits of different classes, most of them small, over a cluttered background. The
digits are the 1,797 real ones of 8x8 px that scikit-learn ships (UCI "Optical Recognition of Handwritten
Digits"); a digit's image that is used in one split is used in no other. Digits have any colour and are
lighter than what surrounds them by about `CONTRAST`; clutter is gradients, blobs, noise, and thin strokes that
are too long to be a digit.
"""

import io
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from pipelines.samples import RawSet, Sample

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCENES = {"train": 6000, "validation": 500, "test": 1000}
SHARE_OF_DIGITS = {"train": 0.60, "validation": 0.15, "test": 0.25}

SIDE = (96, 128)  # px, of height and width each
DIGIT_HEIGHT = (18, 56)  # px, log-uniform: half of the digits are below 32 px
TILT = 12  # degrees, to either side
CONTRAST = 75  # of 255, in luma, between the ink and what is below it, where the range allows it
JPEG_QUALITY = 90
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def read_digits(seed: int = 0) -> RawSet:
    """The set `digits`: 6,000 / 500 / 1,000 scenes, which depend on `seed` alone."""
    digits = load_digits()
    pools = _split_digits(digits.target)
    return RawSet(
        name="digits",
        classes=CLASSES,
        splits={
            split: partial(_scenes, digits.images, digits.target, pools[split], split, seed)
            for split in SCENES
        },
        source=f"made from the digits of scikit-learn's load_digits, seed {seed}",
        licence="CC BY 4.0: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998)",
    )


def _split_digits(target: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the digit images each split may use: stratified by class, the same for every seed."""
    rng = np.random.default_rng(0)
    pools: dict[str, list[np.ndarray]] = {split: [] for split in SHARE_OF_DIGITS}
    for label in range(len(CLASSES)):
        indices = rng.permutation(np.flatnonzero(target == label))
        ends = np.cumsum([round(share * len(indices)) for share in SHARE_OF_DIGITS.values()])[:-1]
        for split, part in zip(SHARE_OF_DIGITS, np.split(indices, ends), strict=True):
            pools[split].append(part)
    return {split: np.concatenate(parts) for split, parts in pools.items()}


def _scenes(
    images: np.ndarray, target: np.ndarray, pool: np.ndarray, split: str, seed: int
) -> Iterator[Sample]:
    by_class = [pool[target[pool] == label] for label in range(len(CLASSES))]
    for index in range(SCENES[split]):
        rng = np.random.default_rng([seed, list(SCENES).index(split), index])
        labels = rng.choice(len(CLASSES), size=rng.integers(1, 5), replace=False)
        picks = [images[rng.choice(by_class[label])] for label in labels]
        yield _make_scene(rng, f"{split}-{index:05d}", picks, labels)


class _Glyph(NamedTuple):
    """One digit, ready to be written: how much ink each pixel of its tight box gets."""

    label: int
    ink: np.ndarray  # (height, width) float32 in [0, 1]


def _make_scene(
    rng: np.random.Generator, scene_id: str, images: list[np.ndarray], labels: np.ndarray
) -> Sample:
    height, width = (int(side) for side in rng.integers(SIDE[0], SIDE[1] + 1, size=2))
    canvas = _background(rng, height, width)

    # The largest digit is placed first; a digit for which no place is left is left out.
    glyphs = sorted(
        (_Glyph(int(label), _draw_digit(rng, image)) for image, label in zip(images, labels, strict=True)),
        key=lambda glyph: -glyph.ink.size,
    )
    placed: list[tuple[_Glyph, int, int]] = []
    taken = np.zeros((height, width), bool)
    for glyph in glyphs:
        place = _find_place(rng, taken, *glyph.ink.shape)
        if place is not None:
            placed.append((glyph, *place))
    for glyph, top, left in placed:
        _write(rng, canvas, glyph.ink, top, left)

    noise = rng.standard_normal(canvas.shape, np.float32)
    picture = Image.fromarray(np.clip(canvas + noise * rng.uniform(2, 9), 0, 255).astype(np.uint8))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return Sample(
        id=scene_id,
        image=encoded.getvalue(),
        present=tuple(sorted(glyph.label for glyph, _, _ in placed)),
        boxes=tuple(
            (
                top / height,
                left / width,
                (top + glyph.ink.shape[0]) / height,
                (left + glyph.ink.shape[1]) / width,
            )
            for glyph, top, left in placed
        ),
        box_labels=tuple(glyph.label for glyph, _, _ in placed),
    )


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth field of colours, some blobs, some strokes. (height, width, 3) float32 in [0, 255]."""
    coarse = rng.uniform(-1, 1, size=(rng.integers(2, 6), rng.integers(2, 6), 3)) * rng.uniform(15, 50)
    coarse = np.clip(rng.uniform(20, 140, size=3) + coarse, 0, 255).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(rng.integers(0, 5)):  # blobs, of sizes that no digit has or too faint to be one
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(6, 40)
        color = (*rng.integers(0, 256, size=3).tolist(), int(rng.integers(20, 70)))
        draw.ellipse((x - r, y - r * rng.uniform(0.4, 1), x + r, y + r * rng.uniform(0.4, 1)), fill=color)
    for _ in range(rng.integers(2, 8)):
        color = (*rng.integers(0, 256, size=3).tolist(), int(rng.integers(90, 220)))
        draw.line(_stroke(rng, height, width), fill=color, width=int(rng.integers(1, 3)))
    return np.asarray(picture, np.float32)


def _stroke(rng: np.random.Generator, height: int, width: int) -> list[tuple[float, float]]:
    """A thin line or zigzag, longer than the tallest digit: not to be taken for a one or a seven."""
    length = rng.uniform(1.2, 3) * DIGIT_HEIGHT[1]
    steps = np.linspace(0, length, int(rng.integers(2, 12)))
    across = rng.uniform(0, 7) * (np.arange(len(steps)) % 2 - 0.5)
    angle = rng.uniform(0, 2 * np.pi)
    x = rng.uniform(0, width) + steps * np.cos(angle) - across * np.sin(angle)
    y = rng.uniform(0, height) + steps * np.sin(angle) + across * np.cos(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _draw_digit(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Scale an 8x8 digit to its height in the scene, tilt it and cut it out tightly."""
    low, high = np.log(DIGIT_HEIGHT)
    tall = round(float(np.exp(rng.uniform(low, high))))
    rows, columns = np.flatnonzero(image.max(1)), np.flatnonzero(image.max(0))
    tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * (255 / 16)
    tight = np.pad(tight, 1)  # an edge of no ink, so that strokes end softly
    wide = max(4, round(tall * tight.shape[1] / tight.shape[0]))
    glyph = Image.fromarray(tight.astype(np.uint8)).resize((wide, tall), Image.Resampling.BICUBIC)
    glyph = glyph.rotate(rng.uniform(-TILT, TILT), Image.Resampling.BICUBIC, expand=True)
    ink = np.clip(np.asarray(glyph, np.float32) / 255 * 1.4 - 0.1, 0, 1)  # crisper than the scanner's grey
    rows, columns = np.flatnonzero(ink.max(1) > 0.3), np.flatnonzero(ink.max(0) > 0.3)
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _find_place(
    rng: np.random.Generator, taken: np.ndarray, height: int, width: int
) -> tuple[int, int] | None:
    """A place (top, left) where a digit touches no other, then marked as taken; None if none was found."""
    for _ in range(50):
        top = int(rng.integers(0, taken.shape[0] - height + 1))
        left = int(rng.integers(0, taken.shape[1] - width + 1))
        if not taken[top : top + height, left : left + width].any():
            taken[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1] = True
            return top, left
    return None


def _write(rng: np.random.Generator, canvas: np.ndarray, ink: np.ndarray, top: int, left: int) -> None:
    """Write a digit into the canvas, in a random colour that stands out from what is below."""
    below = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    luma = below @ LUMA
    lighter = float(np.percentile(luma, 90)) + CONTRAST
    goal = rng.uniform(min(lighter, 254.0), 255)
    color = rng.uniform(0, 255, size=3).astype(np.float32)
    shade = float(color @ LUMA)
    # Mix with black or white until the luma is right, which keeps the hue.
    color = color * (goal / shade) if goal < shade else 255 - (255 - color) * ((255 - goal) / (255 - shade))
    below += (color - below) * ink[..., None]
