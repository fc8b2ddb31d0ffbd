"""The streams and the measures that every table of metrics shows: names, order, titles. Loads no TensorFlow.

A new line in `MEASURES` adds a measure to `metrics.json` and a column to the tables of evaluate, fit, sweep, report,
TensorBoard and the model card.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from mcar_tf import metrics
from pipelines.words import percent

Array = npt.NDArray[Any]

# Name of a stream, as in `metrics.json` -> its probabilities: an output of the model, and a field of `Predictions`.
STREAMS = {"global": "global_probs", "local": "local_probs", "fused": "probs"}
STREAM_TITLES = {"global": "global stream", "local": "local stream", "fused": "both, fused"}
# Name of a stream -> the column of `history.csv` with its mAP on the validation split.
VALIDATION_MAP = {stream: f"val_mAP_{stream}" for stream in STREAMS}


class Detail(enum.IntEnum):
    """How much a table shows: the measures of its own level and of all lower levels."""

    SHORT = 1  # the most important measures: the end of fit, sweep
    PAPER = 2  # Tables I and II of the paper: report, TensorBoard, the model card
    FULL = 3  # evaluate
    FILE = 4  # only `metrics.json`


@dataclasses.dataclass(frozen=True)
class StreamNumbers:
    """The numbers that the measures of one stream are computed from.

    Attributes:
        average_precision: (C,), NaN for a class without positives.
        average_precision_11_point: (C,), likewise.
        decisions: (3, C), what `mcar_tf.metrics.count_decisions` returns.
        calibration_error: the expected calibration error over all pairs of image and class.
    """

    average_precision: Array
    average_precision_11_point: Array
    decisions: Array
    calibration_error: float


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number about a stream: an entry of `metrics.json`, and a column of tables.

    Attributes:
        name: its key in `metrics.json`.
        detail: the shortest tables that show it.
        compute: computes it as a fraction; NaN if it is unknown.
        of_decisions: whether it depends on which classes are predicted. Such a measure is computed twice: for the
            classes whose probability reaches the threshold, and for each image's three most probable ones ("top 3").
        title: the head of its column, at most six letters; by default its name.
    """

    name: str
    detail: Detail
    compute: Callable[[StreamNumbers], float]
    of_decisions: bool = False
    title: str = ""


def _of_decisions(name: str, detail: Detail) -> Measure:
    return Measure(name, detail, lambda numbers: metrics.metrics_of_counts(*numbers.decisions)[name], True)


MEASURES: tuple[Measure, ...] = (
    Measure("mAP", Detail.SHORT, lambda numbers: metrics.mean_over_classes(numbers.average_precision)),
    Measure(
        "mAP_11_point",
        Detail.FULL,
        lambda numbers: metrics.mean_over_classes(numbers.average_precision_11_point),
        title="11-pt",
    ),
    _of_decisions("CP", Detail.PAPER),
    _of_decisions("CR", Detail.PAPER),
    _of_decisions("CF1", Detail.SHORT),
    _of_decisions("OP", Detail.PAPER),
    _of_decisions("OR", Detail.PAPER),
    _of_decisions("OF1", Detail.SHORT),
    Measure("ECE", Detail.FILE, lambda numbers: numbers.calibration_error),
)


def measures(detail: Detail, of_decisions: bool | None = None) -> list[Measure]:
    """The columns of a table.

    Args:
        detail: how much the table shows.
        of_decisions: only measures whose `of_decisions` has this value; None for all.
    """
    return [m for m in MEASURES if m.detail <= detail and of_decisions in (None, m.of_decisions)]


def titles(shown: list[Measure]) -> list[str]:
    """The heads of the columns."""
    return [measure.title or measure.name for measure in shown]


def cells(shown: list[Measure], measured: Mapping[str, Any]) -> list[str]:
    """A row of a table: a stream's numbers in percent, from its part of `metrics.json`; a dash for a missing one."""
    return [percent(measured.get(measure.name)) for measure in shown]


def streams_of(top_n: int) -> list[str]:
    """The streams that a model has; the plain backbone, without regions, has only the global one."""
    return list(STREAMS) if top_n else ["global"]


def measure_stream(numbers: StreamNumbers, top3: Array) -> dict[str, Any]:
    """All measures of a stream by name; `top3` holds those of decisions for each image's three most probable classes.

    Args:
        numbers: the stream's numbers.
        top3: (3, C), the counts of `mcar_tf.metrics.count_decisions` when each image is assigned three classes.
    """
    assigned = dataclasses.replace(numbers, decisions=top3)
    return {measure.name: measure.compute(numbers) for measure in MEASURES} | {
        "top3": {measure.name: measure.compute(assigned) for measure in MEASURES if measure.of_decisions}
    }


# Name of a variant of a picture, as `pipelines.variants` makes it -> its name in tables.
VARIANT_TITLES = {
    "rounded": "rounded to whole levels",
    "resized": "resized by Pillow",
    "saved_again": "saved again as JPEG, quality 90",
}
