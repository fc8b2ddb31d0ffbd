"""A run in, accuracy and time of every way to use it out: what can be changed without training, measured."""

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mcar_tf.benchmarking.timing import time_in_turn
from mcar_tf.evaluating.looks import doubt_of
from mcar_tf.evaluating.predicting import predict_split
from mcar_tf.evaluating.predictions import Array
from mcar_tf.exporting.forms import GLOBAL_ONLY
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from mcar_tf.metrics import mean_average_precision
from mcar_tf.models.trainer import fuse_probs
from mcar_tf.runs.loading import Run, check_classes, load_run
from pipelines.files import write_text
from pipelines.input_pipeline import make_eval_dataset
from pipelines.manifest import Manifest, Portion, Split
from pipelines.reading import read_json_object
from pipelines.verify import naming_shards
from pipelines.words import counted

OURS, PLAIN = "ours", "plain"


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to use a model.

    Attributes:
        kind: `OURS`, of the run, or `PLAIN`, of the plain backbone.
        changes: option of `export` -> value, where it differs from the run's own, or from float32.
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
        precision = f", {self.changes['precision']}" if "precision" in self.changes else ""
        if self.kind == PLAIN:
            return f"{size}{precision}"
        size = size and f" at {size}"
        if not self.changes["top_n"]:
            return f"one look{size}{precision}"
        crops = f" of {self.changes['local_size']} px" if "local_size" in self.changes else ""
        tau = f", tau {self.changes['tau']:g}" if "tau" in self.changes else ""
        regions = f"{counted(self.changes['top_n'], 'region')}{crops}{size}{tau}"
        return f"{regions}, {self.changes['fusion']}{precision}"

    @property
    def way(self) -> dict[str, Any]:
        """What is changed of the run, whatever the share of the pictures that is looked at again."""
        return {name: value for name, value in self.changes.items() if name != "look_doubt"}

    @property
    def first_look(self) -> str:
        """`looks` of the same pictures, looked at once."""
        kept = ("image_size", "glance_size", "precision")
        changes = {name: value for name, value in self.changes.items() if name in kept}
        return json.dumps([self.kind, {"top_n": 0, **changes}])

    @property
    def looks(self) -> str:
        """What takes the time when a picture is looked at again: the rule of fusion costs nothing."""
        return _key_of(self.kind, self.way)


class Files:
    """The TFLite file of every way to look, converted once.

    Args:
        folders: kind -> run folder.
        calibration: the pictures by which int8 finds the ranges of a run's model, (S, S, 3) each.
    """

    def __init__(self, folders: Mapping[str, Path], calibration: Callable[[Run], Iterable[Array]]) -> None:
        self._folders, self._calibration = folders, calibration
        self._converted: dict[str, bytes] = {}

    def of(self, kind: str, way: Mapping[str, Any]) -> bytes:
        """The content of the file; the rule of fusion is no matter."""
        key = _key_of(kind, way)
        if key not in self._converted:
            run = load_way(self._folders[kind], way)
            precision = way.get("precision", "float32")
            calibration = self._calibration(run) if precision == "int8" else None
            self._converted[key] = convert_tflite(run.model, precision, calibration)
        return self._converted[key]


def of_model(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `changes` change of the model: all but the precision of its file."""
    return {name: value for name, value in changes.items() if name != "precision"}


def load_way(path: Path, way: Mapping[str, Any]) -> Run:
    """A run with changes, which looks at all pictures again if it looks twice, whatever the run does."""
    all_pictures: dict[str, Any] = {"look_doubt": 0.0} if way.get("top_n") else {}
    return load_run(path, **of_model(way), **all_pictures)


def ways_to_look(
    top_n: Sequence[int],
    sizes: Sequence[Mapping[str, int]],
    local_sizes: Sequence[int | None],
    taus: Sequence[float | None],
    fusions: Sequence[str],
    precisions: Sequence[str] = ("float32",),
) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """What to change of a run, and by which rules to fuse each: at each size one look alone, then all combinations.

    Args:
        top_n: numbers of regions.
        sizes: changes of `image_size` and `glance_size`; none for the run's own.
        local_sizes: sides of the regions' crops; None for the run's.
        taus: thresholds of the localizer; None for the run's.
        fusions: rules of fusion.
        precisions: of the TFLite file.
    """
    for precision, size in itertools.product(precisions, sizes):
        stored = in_precision(precision)
        yield {"top_n": 0, **size, **stored}, ()
        for regions, local_size, tau in itertools.product(top_n, local_sizes, taus):
            given = {"local_size": local_size, "tau": tau}
            changes = {name: value for name, value in given.items() if value is not None}
            yield {"top_n": regions, **size, **changes, **stored}, fusions


def in_precision(precision: str) -> dict[str, str]:
    """The change that stands for a precision: none for float32."""
    return {} if precision == "float32" else {"precision": precision}


def measure_accuracy(
    kind: str,
    path: Path,
    ways: Iterable[tuple[dict[str, Any], Sequence[str]]],
    manifest: Manifest,
    split: Split | Portion,
    known: Sequence[Point],
    note: Callable[[Point], None],
    files: Files,
    shares: Sequence[float] = (),
) -> None:
    """The mAP of every way that is not known yet: of the model, or of its file if that is not of float32.

    Args:
        kind: of the points.
        path: the run folder.
        ways: changes of the run, and rules of fusion to try with each.
        manifest: of the set.
        split: to measure on.
        known: points of an earlier call.
        note: what to do with each new point.
        files: of the run.
        shares: shares of the pictures to look at again, those that the first look leaves most in doubt; each is a
            point beside the one in which all are looked at again.
    """
    found = {(point.kind, json.dumps(dict(point.changes))) for point in known}
    for changes, fusions in ways:
        wanted = [changes | {"fusion": fusion} for fusion in fusions] or [changes]
        wanted = [one for one in wanted if (kind, json.dumps(one)) not in found]
        if not wanted:
            continue
        run = load_way(path, changes)
        check_classes(run, manifest)
        if "precision" in changes:
            answers = ask_file(files.of(kind, changes), run, split)
        else:
            found_by = predict_split(run.model, split, batch_size=run.config.batch_size)
            answers = Answers(found_by.labels, found_by.weights, found_by.global_probs, found_by.local_probs)
        for one in wanted:
            once = answers.global_probs
            if "fusion" not in one:
                note(Point(kind, one, answers.mean_ap(once)))
                continue
            fused = fuse_probs(once, answers.local_probs, one["fusion"]).numpy()
            doubt = doubt_of(once)
            for share in shares:
                least = round(float(np.quantile(doubt, 1.0 - share)), 2)
                again = doubt >= least
                mean_ap = answers.mean_ap(np.where(again[:, np.newaxis], fused, once))
                key = (kind, json.dumps(one | {"look_doubt": least}))
                if key not in found:
                    found.add(key)
                    note(Point(kind, one | {"look_doubt": least}, mean_ap, share=float(again.mean())))
            # Last: a call that is cut off before goes on here.
            note(Point(kind, one, answers.mean_ap(fused)))


class Answers(NamedTuple):
    """What was answered of a split's pictures, and what is right: (P, C) each."""

    labels: Array
    weights: Array
    global_probs: Array
    local_probs: Array

    def mean_ap(self, probs: Array) -> float:
        """The mAP of probabilities for these pictures, in [0, 1]."""
        return float(mean_average_precision(self.labels, probs, self.weights))


def ask_file(content: bytes, run: Run, split: Split | Portion) -> Answers:
    """Ask a TFLite file of a run's model about a split's pictures, one at a time as a phone does."""
    runner = load_runner(content)
    dataset = make_eval_dataset(
        split.files,
        num_classes=len(run.classes),
        image_size=run.model.image_size,
        batch_size=1,
        difficult="ignore",
    )
    interval = 0.1 if sys.stderr.isatty() else 30
    rows = []
    with naming_shards(split.files):
        for batch in tqdm(
            dataset, "predicting", split.examples, leave=False, unit=" images", mininterval=interval
        ):
            outputs = runner(image=batch["image"].numpy())
            known = batch["labels"].numpy(), batch["weights"].numpy()
            rows.append((*known, outputs["global_probs"], outputs["local_probs"]))
    return Answers(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def measure_times(points: Sequence[Point], files: Files, rounds: int, threads: int) -> list[Point]:
    """The points with the time of a picture, all timed in turn through LiteRT.

    A way is timed by its median. Where a share of the pictures is looked at again, as by an app that calls
    `global_only` and then looks again or not, the time is the mean over the pictures.

    Args:
        points: to time.
        files: of the runs.
        rounds: times that each is asked.
        threads: of the interpreter.
    """
    asks: dict[str, Callable[[], object]] = {}
    for point in tqdm(points, "building the files", leave=False, unit=" ways", disable=None):
        if point.looks not in asks:
            signature = "mcar" if point.changes.get("top_n") else GLOBAL_ONLY
            asks[point.looks] = _ask_of(files.of(point.kind, point.way), signature, threads)
    times = {name: float(np.median(found)) for name, found in time_in_turn(asks, rounds).items()}

    def time_of(point: Point) -> float:
        if point.share == 1.0:
            return times[point.looks]
        once = times[point.first_look]
        return once + point.share * (times[point.looks] - once)

    return [dataclasses.replace(point, milliseconds=time_of(point)) for point in points]


def _key_of(kind: str, way: Mapping[str, Any]) -> str:
    return json.dumps([kind, {name: value for name, value in way.items() if name != "fusion"}])


def _ask_of(content: bytes, signature: str, threads: int) -> Callable[[], object]:
    runner = load_runner(content, signature, threads)
    shape = runner.get_input_details()["image"]["shape"]
    picture = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
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
