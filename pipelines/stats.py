"""Show what is in a prepared set, in numbers and a figure: labels, classes, sizes, which classes appear together."""

import dataclasses
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.files import written_whole
from pipelines.manifest import Manifest
from pipelines.words import counted

# Up to this many classes, each gets a line in the table, a bar with its name, and a row and a column in the panel of
# classes that appear together. With more, the most frequent and the rarest are printed, and the bars have no names.
MOST_CLASSES = 200
SHOWN_CLASSES = 20  # how many of the most frequent, and of the rarest, are printed then


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The statistics of one split with C classes and n pictures.

    Attributes:
        labels: (all labels,) int32, the classes of the first picture, of the second, ...
        lengths: (n,) int32, how many classes each picture shows.
        sizes: (n, 2) int32, height and width in px, upright.
        encoded_bytes: size of all encoded pictures together.
        objects: number of boxes.
    """

    labels: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    encoded_bytes: int
    objects: int

    @property
    def labels_per_image(self) -> dict[int, int]:
        """Number of labels -> number of pictures that have so many."""
        return dict(sorted(Counter(self.lengths.tolist()).items()))

    def together_with(self, label: int, num_classes: int) -> np.ndarray:
        """(C,) int64, how many pictures show both `label` and each class; at `label`, how many show `label`."""
        picture = np.repeat(np.arange(len(self.lengths)), self.lengths)
        shows = np.zeros(len(self.lengths), bool)
        shows[picture[self.labels == label]] = True
        return np.bincount(self.labels[shows[picture]], minlength=num_classes)


def read_statistics(manifest: Manifest, split: str) -> Statistics:
    """Read every record of a split; no picture is decoded."""
    from pipelines.input_pipeline import read_samples

    labels, lengths, sizes = array("i"), array("i"), array("i")
    encoded_bytes = objects = 0
    for sample, picture in read_samples(manifest.splits[split].files):
        labels.extend(sample.present)
        lengths.append(len(sample.present))
        sizes.extend((picture.height, picture.width))
        encoded_bytes += len(picture.encoded)
        objects += len(sample.boxes)
    return Statistics(
        np.array(labels, np.int32),
        np.array(lengths, np.int32),
        np.array(sizes, np.int32).reshape(-1, 2),
        encoded_bytes,
        objects,
    )


def print_statistics(manifest: Manifest, statistics: dict[str, Statistics]) -> None:
    """Print a summary of each split, and a table of classes."""
    for split, found in statistics.items():
        pictures = len(found.sizes)
        height, width = np.median(found.sizes, axis=0)
        labels = len(found.labels) / pictures
        print(
            f"{split}: {counted(pictures, 'picture')}, {labels:.2f} labels each, {counted(found.objects, 'box')};"
            f" {found.encoded_bytes / pictures / 1000:.0f} kB, median {height:.0f} x {width:.0f} px;"
            f" {len(manifest.splits[split].skipped):,} left out"
        )
        for count, number in found.labels_per_image.items():
            print(f"  {counted(count, 'label')}: {number:,} ({number / pictures:.1%})")
    shown = _shown_classes(manifest)
    length = max(len(manifest.classes[label]) for label in shown)
    heads = "".join(f"{split:>14}{'difficult':>11}" for split in statistics)
    print(f"{'class':{length}}{heads}  most often with")
    for place, label in enumerate(shown):
        row = "".join(
            f"{manifest.splits[split].present[label]:>14,}{manifest.splits[split].difficult[label]:>11,}"
            for split in statistics
        )
        others = np.sum(
            [found.together_with(label, len(manifest.classes)) for found in statistics.values()], axis=0
        )
        others[label] = 0
        partner = manifest.classes[int(others.argmax())] if others.any() else "-"
        print(f"{manifest.classes[label]:{length}}{row}  {partner}")
        if place == SHOWN_CLASSES - 1 and len(shown) < len(manifest.classes):
            print(f"... {len(manifest.classes) - len(shown):,} classes in between ...")


def _shown_classes(manifest: Manifest) -> list[int]:
    """All classes in order; if there are very many, only the most frequent and the rarest."""
    if len(manifest.classes) <= MOST_CLASSES:
        return list(range(len(manifest.classes)))
    pictures = np.sum([split.present for split in manifest.splits.values()], axis=0)
    order = np.argsort(-pictures, kind="stable").tolist()
    return [*order[:SHOWN_CLASSES], *order[-SHOWN_CLASSES:]]


def draw_statistics(manifest: Manifest, statistics: dict[str, Statistics], path: Path) -> Path:
    """Draw a row of panels for each split into a PNG.

    The fourth panel, which classes appear together, is drawn only if there are few classes.
    """
    from matplotlib.figure import Figure

    rows, num_classes = len(statistics), len(manifest.classes)
    few = num_classes <= MOST_CLASSES
    side = max(4.0, 0.12 * num_classes) if few else 4.0  # inches
    name_size = min(8.0, 0.75 * 72 * side / num_classes)  # points, so that names don't touch
    figure = Figure(figsize=(16 + side * few, side * rows), layout="constrained")
    widths = (4, 4, 4, side) if few else (4, 4, 4)
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for (split, found), (classes, labels, sizes, *pairs) in zip(statistics.items(), axes, strict=True):
        counts = np.bincount(found.labels, minlength=num_classes)
        order = np.argsort(counts)
        scale = "log" if counts.max(initial=0) > 50 else "linear"
        if few:
            classes.barh([manifest.classes[i] for i in order], counts[order])
            classes.tick_params(labelsize=name_size)
        else:
            classes.fill_betweenx(np.arange(num_classes), counts[order], step="mid")
            classes.set_ylabel("classes, by their pictures")
        classes.set(title=f"{split}: pictures per class", xscale=scale)
        labels.bar(list(found.labels_per_image), list(found.labels_per_image.values()))
        labels.set(title="pictures by number of labels", xlabel="labels")
        shown = found.sizes[:: max(1, len(found.sizes) // 5000)]
        sizes.scatter(shown[:, 1], shown[:, 0], s=4, alpha=0.3)
        sizes.set(title="sizes", xlabel="width, px", ylabel="height, px")
        for panel in pairs:
            _draw_pairs(figure, panel, found, counts, manifest.classes, name_size)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    return path


def _draw_pairs(
    figure: Any, panel: Any, found: Statistics, counts: np.ndarray, names: tuple[str, ...], name_size: float
) -> None:
    together = np.stack([found.together_with(label, len(names)) for label in range(len(names))])
    share = together / np.maximum(counts[:, None], 1)
    image = panel.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_yticks(range(len(names)), names)
    panel.set(title="of pictures with the row's class, share with the column's")
    panel.tick_params(labelsize=name_size)
    figure.colorbar(image, ax=panel, shrink=0.5)
