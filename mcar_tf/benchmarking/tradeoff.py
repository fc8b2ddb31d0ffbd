"""A run in, accuracy and time of every way to use it out: what can be changed without training, measured."""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mcar_tf.benchmarking.timing import time_in_turn
from mcar_tf.evaluating.looks import doubt_of
from mcar_tf.evaluating.predicting import predict_split
from mcar_tf.evaluating.predictions import Array, Predictions
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from mcar_tf.metrics import mean_average_precision
from mcar_tf.models.trainer import fuse_probs
from mcar_tf.runs.loading import Run, check_classes, load_run
from pipelines.files import write_text
from pipelines.manifest import Manifest, Portion, Split
from pipelines.reading import read_json_object
from pipelines.words import counted

OURS, PLAIN = "ours", "plain"


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to use a model.

    Attributes:
        kind: `OURS`, of the run, or `PLAIN`, of the plain backbone.
        changes: option -> value, where it differs from the run's own.
        mean_ap: mAP on the split, in [0, 1].
        milliseconds: of one picture through LiteRT, in the mean over the pictures; None while it is not timed.
        share: the share of the pictures that are looked at again: less than 1 with a `look_doubt`.
    """

    kind: str
    changes: Mapping[str, Any]
    mean_ap: float
    milliseconds: float | None = None
    share: float = 1.0

    @property
    def ms(self) -> float:
        """`milliseconds`, NaN while it is not timed."""
        return math.nan if self.milliseconds is None else self.milliseconds

    @property
    def title(self) -> str:
        """What is changed, in words, but for the share."""
        size = f"{self.changes['image_size']} px" if "image_size" in self.changes else ""
        if self.kind == PLAIN:
            return size
        size = size and f" at {size}"
        if not self.changes["top_n"]:
            return f"one look{size}"
        crops = f" of {self.changes['local_size']} px" if "local_size" in self.changes else ""
        tau = f", tau {self.changes['tau']:g}" if "tau" in self.changes else ""
        return f"{counted(self.changes['top_n'], 'region')}{crops}{size}{tau}, {self.changes['fusion']}"

    @property
    def way(self) -> dict[str, Any]:
        """What is changed of the run, whatever the share of the pictures that is looked at again."""
        return {name: value for name, value in self.changes.items() if name != "look_doubt"}

    @property
    def first_look(self) -> str:
        """`looks` of the same pictures, looked at once."""
        sizes = {name: value for name, value in self.changes.items() if name in ("image_size", "glance_size")}
        return json.dumps([self.kind, {"top_n": 0, **sizes}])

    @property
    def looks(self) -> str:
        """What takes the time when a picture is looked at again: the rule of fusion costs nothing."""
        return json.dumps([self.kind, _without_fusion(self.way)])


def ways_to_look(
    top_n: Sequence[int],
    sizes: Sequence[Mapping[str, int]],
    local_sizes: Sequence[int | None],
    taus: Sequence[float | None],
    fusions: Sequence[str],
) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """What to change of a run, and by which rules to fuse each: at each size one look alone, then all combinations.

    Args:
        top_n: numbers of regions.
        sizes: changes of `image_size` and `glance_size`; none for the run's own.
        local_sizes: sides of the regions' crops; None for the run's.
        taus: thresholds of the localizer; None for the run's.
        fusions: rules of fusion.
    """
    for size in sizes:
        yield {"top_n": 0, **size}, ()
        for regions, local_size, tau in itertools.product(top_n, local_sizes, taus):
            given = {"local_size": local_size, "tau": tau}
            changes = {name: value for name, value in given.items() if value is not None}
            yield {"top_n": regions, **size, **changes}, fusions


def measure_accuracy(
    kind: str,
    path: Path,
    ways: Iterable[tuple[dict[str, Any], Sequence[str]]],
    manifest: Manifest,
    split: Split | Portion,
    known: Sequence[Point],
    note: Callable[[Point], None],
    shares: Sequence[float] = (),
) -> None:
    """The mAP of every way that is not known yet.

    Args:
        kind: of the points.
        path: the run folder.
        ways: changes of the run, and rules of fusion to try with each.
        manifest: of the set.
        split: to measure on.
        known: points of an earlier call.
        note: what to do with each new point.
        shares: shares of the pictures to look at again, those that the first look leaves most in doubt; each is a
            point beside the one in which all are looked at again.
    """
    found = {(point.kind, json.dumps(dict(point.changes))) for point in known}
    for changes, fusions in ways:
        wanted = [changes | {"fusion": fusion} for fusion in fusions] or [changes]
        wanted = [one for one in wanted if (kind, json.dumps(one)) not in found]
        if not wanted:
            continue
        all_pictures: dict[str, Any] = {"look_doubt": 0.0} if fusions else {}  # whatever the run does
        run = load_run(path, **changes, **all_pictures)
        check_classes(run, manifest)
        predictions = predict_split(run.model, split, batch_size=run.config.batch_size)
        for one in wanted:
            once = predictions.global_probs
            if "fusion" not in one:
                note(Point(kind, one, _mean_ap(predictions, once)))
                continue
            fused = fuse_probs(once, predictions.local_probs, one["fusion"]).numpy()
            doubt = doubt_of(once)
            for share in shares:
                least = round(float(np.quantile(doubt, 1.0 - share)), 2)
                again = doubt >= least
                mean_ap = _mean_ap(predictions, np.where(again[:, np.newaxis], fused, once))
                key = (kind, json.dumps(one | {"look_doubt": least}))
                if key not in found:
                    found.add(key)
                    note(Point(kind, one | {"look_doubt": least}, mean_ap, share=float(again.mean())))
            # Last: a call that is cut off before goes on here.
            note(Point(kind, one, _mean_ap(predictions, fused)))


def measure_times(
    points: Sequence[Point], folders: Mapping[str, Path], rounds: int, threads: int
) -> list[Point]:
    """The points with the time of a picture, all timed in turn through LiteRT.

    A way is timed by its median. Where a share of the pictures is looked at again, as by an app that calls
    `global_only` and then looks again or not, the time is the mean over the pictures.

    Args:
        points: to time.
        folders: kind -> run folder.
        rounds: times that each is asked.
        threads: of the interpreter.
    """
    asks: dict[str, Callable[[], object]] = {}
    for point in points:
        if point.looks not in asks:
            asks[point.looks] = _ask_of(load_run(folders[point.kind], **_without_fusion(point.way)), threads)
    times = {name: float(np.median(found)) for name, found in time_in_turn(asks, rounds).items()}

    def time_of(point: Point) -> float:
        if point.share == 1.0:
            return times[point.looks]
        once = times[point.first_look]
        return once + point.share * (times[point.looks] - once)

    return [dataclasses.replace(point, milliseconds=time_of(point)) for point in points]


def _without_fusion(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != "fusion"}


def _mean_ap(predictions: Predictions, probs: Array) -> float:
    return float(mean_average_precision(predictions.labels, probs, predictions.weights))


def _ask_of(run: Run, threads: int) -> Callable[[], object]:
    runner = load_runner(convert_tflite(run.model), "mcar" if run.config.top_n else "global_only", threads)
    size = run.config.image_size
    picture = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    return lambda: runner(image=picture)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points than which none is both as fast and more accurate, from the fastest on."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.mean_ap)):
        if not front or point.mean_ap > front[-1].mean_ap:
            front.append(point)
    return front


def best_within(points: Sequence[Point], budget: float | None) -> Point | None:
    """The most accurate of our points that takes at most `budget` milliseconds; of equal ones the fastest."""
    fitting = [p for p in points if p.kind == OURS and (budget is None or p.ms <= budget)]
    return max(fitting, key=lambda p: (p.mean_ap, -p.ms), default=None)


def as_good_for_less(points: Sequence[Point], point: Point) -> Point | None:
    """The plain backbone's most accurate point that costs no more and answers no worse, if there is one."""
    rivals = [p for p in points if p.kind == PLAIN and p.ms <= point.ms]
    best = max(rivals, key=lambda p: p.mean_ap, default=None)
    return best if best and best.mean_ap >= point.mean_ap else None


def read_points(path: Path, identity: Mapping[str, str]) -> list[Point]:
    """What an earlier call kept, if it was of the same weights and pictures; else nothing."""
    if not path.is_file():
        return []
    content = read_json_object(path)
    if content.get("of") != dict(identity) or not isinstance(content.get("points"), list):
        return []
    fields = {field.name for field in dataclasses.fields(Point)}
    return [Point(**point) for point in content["points"] if isinstance(point, dict) and set(point) == fields]


def write_points(path: Path, identity: Mapping[str, str], points: Sequence[Point]) -> None:
    """Keep points, and what they are of."""
    content = {"of": dict(identity), "points": [dataclasses.asdict(point) for point in points]}
    write_text(path, json.dumps(content, indent=1) + "\n")
