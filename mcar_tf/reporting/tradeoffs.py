"""Plots the accuracy and time of many ways to use a model."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

from mcar_tf.reporting.figures import COLORS, STYLE

if TYPE_CHECKING:
    from mcar_tf.benchmarking.tradeoff import Point

TITLES = {"ours": "looking twice", "plain": "plain backbone"}


def plot_tradeoff(points: Sequence["Point"], front: Sequence["Point"], split: str) -> bytes:
    """A PNG file of mAP over milliseconds: colour and marker show the kind of each point, a line shows the front."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.4), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        axes.step(
            [p.ms for p in front],
            [100 * p.mean_ap for p in front],
            where="post",
            color="0.6",
            linewidth=1,
            label="nothing is faster and better",
            zorder=1,
        )
        for kind, color, marker in zip(TITLES, COLORS, "os", strict=False):
            own = [p for p in points if p.kind == kind]
            if own:
                axes.scatter(
                    [p.ms for p in own],
                    [100 * p.mean_ap for p in own],
                    color=color,
                    marker=marker,
                    label=TITLES[kind],
                    zorder=2,
                )
        middle = 0.6 * max(p.ms for p in points)
        for point in _named(points, front):
            axes.annotate(
                _label(point),
                (point.ms, 100 * point.mean_ap),
                # Above the line, and inside the axes.
                xytext=(7 if point.ms < middle else -7, 7 if point in front else 0),
                textcoords="offset points",
                ha="left" if point.ms < middle else "right",
                va="center",
                fontsize=7,
                fontweight="bold" if point in front else "normal",
            )
        axes.set_xlabel("milliseconds a picture (LiteRT)")
        axes.set_ylabel(f"mAP on {split}, %")
        axes.set_xlim(left=0)
        axes.margins(x=0.2, y=0.12)
        axes.legend(loc="best", frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _label(point: "Point") -> str:
    share = f", {100 * point.share:.0f} %" if "look_doubt" in point.changes else ""
    return f"{point.title}{share}"


def _named(points: Sequence["Point"], front: Sequence["Point"]) -> list["Point"]:
    """The points whose names have room: those of the front first, from the most accurate on."""
    width = max(p.ms for p in points) or 1.0
    height = max(p.mean_ap for p in points) - min(p.mean_ap for p in points) or 1.0
    others = [p for p in points if p not in front and "look_doubt" not in p.changes]
    named: list[Point] = []
    for point in [*reversed(front), *others]:
        if all(
            abs(point.ms - p.ms) > 0.3 * width or abs(point.mean_ap - p.mean_ap) > 0.045 * height
            for p in named
        ):
            named.append(point)
    return named
