"""A prepared set in; what is in it, as numbers and as a figure: labels, classes, sizes, which classes go together."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from pipelines.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of one split. C classes, n pictures.

    Attributes:
        labels_per_image: number of labels -> pictures.
        together: (C, C) int64, pictures that show both classes; the diagonal is each class's own count.
        sizes: (n, 2) int64, height and width in px, upright.
        encoded_bytes: of all pictures.
        objects: boxes.
    """

    labels_per_image: dict[int, int]
    together: np.ndarray
    sizes: np.ndarray
    encoded_bytes: int
    objects: int


def read_statistics(manifest: Manifest, split: str) -> Statistics:
    """Read every record of a split; no picture is decoded."""
    from pipelines.input_pipeline import read_samples

    labels_per_image: Counter[int] = Counter()
    together = np.zeros((len(manifest.classes), len(manifest.classes)), np.int64)
    sizes, encoded_bytes, objects = [], 0, 0
    for sample, picture in read_samples(manifest.splits[split].files):
        present = np.array(sample.present, np.int64)
        labels_per_image[len(present)] += 1
        together[np.ix_(present, present)] += 1
        sizes.append((picture.height, picture.width))
        encoded_bytes += len(picture.encoded)
        objects += len(sample.boxes)
    return Statistics(
        dict(sorted(labels_per_image.items())), together, np.array(sizes), encoded_bytes, objects
    )


def print_statistics(manifest: Manifest, statistics: dict[str, Statistics]) -> None:
    """Print a summary of each split, and a table of classes."""
    for split, found in statistics.items():
        pictures = len(found.sizes)
        height, width = np.median(found.sizes, axis=0)
        labels = sum(count * number for count, number in found.labels_per_image.items())
        print(
            f"{split}: {pictures:,} pictures, {labels / pictures:.2f} labels each, {found.objects:,} boxes;"
            f" {found.encoded_bytes / pictures / 1000:.0f} kB, median {height:.0f} x {width:.0f} px;"
            f" {len(manifest.splits[split].skipped):,} left out"
        )
        for count, number in found.labels_per_image.items():
            print(f"  {count} labels: {number:,} ({number / pictures:.1%})")
    length = max(len(name) for name in manifest.classes)
    heads = "".join(f"{split:>14}{'difficult':>11}" for split in statistics)
    print(f"{'class':{length}}{heads}  most often with")
    together = np.sum([found.together for found in statistics.values()], axis=0)
    for label, name in enumerate(manifest.classes):
        row = "".join(
            f"{manifest.splits[split].present[label]:>14,}{manifest.splits[split].difficult[label]:>11,}"
            for split in statistics
        )
        others = np.where(np.arange(len(together)) == label, 0, together[label])
        partner = manifest.classes[int(others.argmax())] if others.any() else "-"
        print(f"{name:{length}}{row}  {partner}")


def draw_statistics(manifest: Manifest, statistics: dict[str, Statistics], path: Path) -> Path:
    """Draw one row of four panels for each split into a PNG."""
    from matplotlib.figure import Figure

    rows = len(statistics)
    side = max(4.0, 0.12 * len(manifest.classes))  # inches
    name_size = min(8.0, 0.75 * 72 * side / len(manifest.classes))  # points: names touch no others
    figure = Figure(figsize=(16 + side, side * rows), layout="constrained")
    axes = figure.subplots(rows, 4, squeeze=False, width_ratios=(4, 4, 4, side))
    for (split, found), (classes, labels, sizes, pairs) in zip(statistics.items(), axes, strict=True):
        counts = found.together.diagonal()
        order = np.argsort(counts)
        classes.barh([manifest.classes[i] for i in order], counts[order])
        classes.set(title=f"{split}: pictures per class", xscale="log" if counts.max() > 50 else "linear")
        labels.bar(list(found.labels_per_image), list(found.labels_per_image.values()))
        labels.set(title="pictures by number of labels", xlabel="labels")
        shown = found.sizes[:: max(1, len(found.sizes) // 5000)]
        sizes.scatter(shown[:, 1], shown[:, 0], s=4, alpha=0.3)
        sizes.set(title="sizes", xlabel="width, px", ylabel="height, px")
        share = found.together / np.maximum(counts[:, None], 1)
        image = pairs.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        ticks = range(len(manifest.classes))
        pairs.set_xticks(ticks, manifest.classes, rotation=90)
        pairs.set_yticks(ticks, manifest.classes)
        pairs.set(title="of pictures with the row's class, share with the column's")
        figure.colorbar(image, ax=pairs, shrink=0.5)
        for panel in (classes, pairs):
            panel.tick_params(labelsize=name_size)
    figure.savefig(path, dpi=110)
    return path
