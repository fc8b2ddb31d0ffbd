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


def plot_tradeoff(
    points: Sequence["Point"], front: Sequence["Point"], plain_front: Sequence["Point"], split: str
) -> bytes:
    """A PNG file of mAP over milliseconds: colour and marker show the kind of each point, lines show the fronts.

    Args:
        points: all that were measured.
        front: those than which none is both as fast and more accurate.
        plain_front: the same among the plain backbone's alone.
        split: on which mAP was measured, for the axis' title.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4.4), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        for line, color, dashes, label in (
            (front, "0.6", "-", "nothing is faster and better"),
            (plain_front, COLORS[1], ":", "best of the plain backbone"),
        ):
            if line:
                axes.step(
                    [p.ms for p in line],
                    [100 * p.mean_ap for p in line],
                    dashes,
                    where="post",
                    color=color,
                    linewidth=1,
                    label=label,
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
        slowest = max(p.ms for p in points)
        for point in _named(points, front):
            on_front = point in front
            # By definition nothing lies to the left of the front and above it. Labels stay inside the axes.
            label = _label(point)
            to_left = point.ms > (0.012 * len(label) if on_front else 0.6) * slowest
            axes.annotate(
                label,
                (point.ms, 100 * point.mean_ap),
                xytext=(-7 if to_left else 7, 5 if on_front else 0),
                textcoords="offset points",
                ha="right" if to_left else "left",
                va="center",
                fontsize=7,
                fontweight="bold" if on_front else "normal",
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
