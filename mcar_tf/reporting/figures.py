"""Plots the report's figures: SVG files as bytes, legible at a phone's width."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mcar_tf.evaluating.columns import VALIDATION_MAP
from pipelines.words import printable

Array = npt.NDArray[Any]

# Distinguishable with any colour vision (Okabe and Ito). The first is the run's, the others those of the runs that it
# is compared with.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDTH = 4.4  # inches: 422 CSS px, about what a phone shows, so that letters keep their size there
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.fonttype": "none",  # write text as text: the file is small, the text sharp and selectable
    "svg.hashsalt": "mcar_tf",  # fixed, so that the same numbers give the same file
    "text.parse_math": False,  # a class may be called "$"
}


def plot_losses(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Losses by epoch: their sum, and each stream's loss.

    Args:
        histories: run -> rows of `history.csv`, with numbers instead of texts.
    """
    lines = {"loss": ("total", "-"), "global_loss": ("global", "--"), "local_loss": ("local", ":")}
    return _plot_history(histories, lines, "loss", 1)


def plot_validation_map(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """MAP on the validation split by epoch. Arguments as for `plot_losses`."""
    lines = {
        VALIDATION_MAP["fused"]: ("fused", "-"),
        VALIDATION_MAP["global"]: ("global", "--"),
        VALIDATION_MAP["local"]: ("local", ":"),
    }
    return _plot_history(histories, lines, "mAP, %", 100)


def plot_class_ap(
    classes: Sequence[str], aps: Mapping[str, Array], positives: Sequence[int] | Array
) -> bytes:
    """AP of each class, the best class on top, for one run or for several side by side (Fig. 4).

    Args:
        classes: C names.
        aps: run -> (C,), NaN for classes without positives, which are left out.
        positives: (C,), how many pictures show each class.
    """
    runs = list(aps)
    known = np.flatnonzero(~np.isnan(aps[runs[0]]))
    order = known[np.argsort(aps[runs[0]][known], kind="stable")]  # bars are drawn from the bottom up
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.17 * len(order)), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(order)), 100 * aps[runs[0]][order], color=COLORS[0], height=0.7, label=runs[0])
        for run, color, mark in zip(runs[1:], COLORS[1:], "od^sv", strict=False):
            points = 100 * aps[run][order]
            axes.plot(points, range(len(order)), mark, color=color, markersize=4, label=run, linestyle="none")
        names = [f"{_short(classes[c])} ({positives[c]})" for c in order]
        axes.set_yticks(range(len(order)), names, fontsize=7)
        axes.set(xlim=(0, 100), ylim=(-0.7, len(order) - 0.3), xlabel="average precision, %")
        axes.grid(axis="y", visible=False)
        if len(runs) > 1:
            handles, labels = axes.get_legend_handles_labels()  # lists lines first: restore the order of runs
            handles = [handles[labels.index(run)] for run in runs]
            figure.legend(handles, runs, loc="outside upper center", ncols=2, fontsize=7)
        return _svg(figure)


def plot_precision_recall(
    classes: Sequence[str], aps: Array, curves: Mapping[str, Sequence[tuple[Array, Array]]]
) -> bytes:
    """Precision over recall, in one small panel per class, for one run or several.

    Args:
        classes: C names, at least one.
        aps: (C,), for the panels' titles.
        curves: run -> precision and recall of each class, by descending threshold.
    """
    columns = 4
    rows = -(-len(classes) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.05 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for c, (axes, name) in enumerate(zip(panels, classes, strict=False)):
            for run, color in zip(curves, _colors(curves), strict=True):
                precision, recall = curves[run][c]
                # The curve starts at recall 0 with the precision of the first threshold.
                axes.plot([0, *recall], [precision[0], *precision], color=color, linewidth=1, label=run)
            axes.set_title(f"{_short(name, 14)} {100 * aps[c]:.0f}", fontsize=7)
            axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=[0, 1], yticks=[0, 1])
            axes.tick_params(labelsize=7)
        for axes in panels[len(classes) :]:
            axes.set_axis_off()
        figure.supxlabel("recall", fontsize=8)
        figure.supylabel("precision", fontsize=8)
        if len(curves) > 1:
            figure.legend(
                *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7
            )
        return _svg(figure)


def plot_confusions(
    classes: Sequence[str], claimed: Array, pictures: Array, most: int = 20, least_pictures: int = 5
) -> bytes:
    """For each class that pictures show, how often each other class is falsely claimed in them.

    Args:
        classes: C names.
        claimed: (C, C): in how many pictures that show the row's class the column's class is falsely claimed.
        pictures: (C, C): how many pictures show the row's class and not the column's. Both arrays come from
            `mcar_tf.metrics.count_false_claims`.
        most: largest number of rows and columns; the classes with the most false claims are shown.
        least_pictures: pairs with fewer pictures stay white, because a share of so few says little.
    """
    rates = np.full(claimed.shape, np.nan)
    np.divide(claimed, pictures, out=rates, where=pictures >= least_pictures)
    chosen = np.argsort(-(claimed.sum(axis=0) + claimed.sum(axis=1)), kind="stable")[:most]
    names = [_short(classes[c], 14) for c in chosen]
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 0.9 * WIDTH), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(100 * rates[np.ix_(chosen, chosen)], cmap="Reds", vmin=0)
        axes.set_xticks(range(len(chosen)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(chosen)), names, fontsize=7)
        axes.set(xlabel="falsely claimed", ylabel="in the picture")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=15)
        bar.set_label("% of pictures", fontsize=7)
        bar.ax.tick_params(labelsize=7)
        return _svg(figure)


def plot_over_option(option: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """MAP over the values of an option (Fig. 5).

    Args:
        option: its name.
        lines: name of a line -> points, (value, mAP as a fraction).
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3), layout="constrained")
        axes = figure.subplots()
        for (name, points), color in zip(lines.items(), _colors(lines), strict=True):
            values, fractions = zip(*sorted(points), strict=True)
            axes.plot(
                values, 100 * np.array(fractions), "o-", markersize=4, color=color, label=_short(name, 40)
            )
        axes.set_xticks(sorted({value for points in lines.values() for value, _ in points}))
        axes.set(xlabel=option, ylabel="mAP, %")
        axes.legend(fontsize=7)
        return _svg(figure)


def _plot_history(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    lines: Mapping[str, tuple[str, str]],
    ylabel: str,
    factor: float,
) -> bytes:
    """Columns of histories by epoch: each run has its own colour, each column its own line style."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3 + 0.25 * (len(histories) - 1)), layout="constrained")
        axes = figure.subplots()
        for (run, rows), color in zip(histories.items(), _colors(histories), strict=True):
            for column, (name, style) in lines.items():
                points = [(row["epoch"], factor * row[column]) for row in rows if column in row]
                if points:
                    label = name if len(histories) == 1 else f"{_short(run)}: {name}"
                    mark = "." if len(points) == 1 else None
                    axes.plot(*zip(*points, strict=True), style, marker=mark, color=color, label=label)
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines and len(histories) == 1:
            axes.legend(fontsize=7)
        elif axes.lines:  # many names: put the legend above the plot, so that it hides no curves
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7)
        return _svg(figure)


def _colors(runs: Mapping[str, Any]) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(len(runs))]


def _short(name: str, letters: int = 20) -> str:
    name = printable(name[: letters + 1])
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
