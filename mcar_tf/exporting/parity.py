"""Compare a model with an exported form of it on the same pictures: how far apart are they?

The localizer is a step function: a rounding error can move a box by a pixel, and a probability by a lot. So a form is
compared with the model in three ways: (a) `global_probs`, (b) `local_probs` given the form's own boxes, (c) agreement
of boxes, labels and mAP. Letters: P pictures, C classes, N regions, S px a side.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from mcar_tf.evaluating.looks import doubt_of
from mcar_tf.exporting.forms import (
    GLOBAL_ONLY,
    LOOK_AT,
    LOOKED_AT,
    Answer,
    Array,
    Bar,
    LoadedForm,
    PictureBatch,
)
from mcar_tf.metrics import mean_average_precision
from mcar_tf.models.mcar import MCAR
from pipelines.words import percent


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far an exported form is from its model; shares and mAP as fractions.

    Attributes:
        pictures: P.
        global_difference: (a) largest absolute difference of `global_probs`, in whichever signature it is largest.
        local_difference: (b) the same for `local_probs`, with the model given the form's boxes, and for `look_at`.
        same_classes: (c) share of the model's regions for whose class the form has a region too.
        same_boxes: share of the model's regions whose box the form has for the same class, to half a pixel.
        box_iou: mean intersection over union of regions of the same class.
        same_top_label: share of pictures whose most probable class is the same.
        model_mean_ap, form_mean_ap: mAP of the fused probabilities; None if no labels are known.
    """

    pictures: int
    global_difference: float
    local_difference: float
    same_classes: float
    same_boxes: float
    box_iou: float
    same_top_label: float
    model_mean_ap: float | None
    form_mean_ap: float | None

    @property
    def unknown(self) -> list[str]:
        """The names of values that are not finite, as for a form whose outputs are NaN."""
        values = dataclasses.asdict(self).items()
        return [name for name, value in values if value is not None and not np.isfinite(value)]

    @property
    def mean_ap_loss(self) -> float | None:
        """By how much the form's mAP is below the model's."""
        if self.model_mean_ap is None or self.form_mean_ap is None:
            return None
        return self.model_mean_ap - self.form_mean_ap


# mAP of fewer pictures is reported but not judged: two pictures that swap ranks would change it by a point.
MIN_PICTURES_FOR_MEAN_AP = 200
EDGE = 1e-4  # of a look band: as far as a form's global probabilities may differ
DOUBT_EDGE = 1e-3  # of a look doubt, in bits


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Multiply in full float32 inside the block; newer GPUs otherwise use TF32, which is too coarse for comparing."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@full_float32()
def measure_parity(
    model: MCAR, forms: Mapping[str, LoadedForm], batches: Iterable[PictureBatch]
) -> dict[str, Parity]:
    """Run exported forms and their model on the same pictures.

    Args:
        model: the model that was exported.
        forms: its loaded forms, by name.
        batches: batches of at least one picture.

    Returns:
        Each form's parity, by its name.
    """
    predict = tf.function(lambda images: model(images, training=False), autograph=False)
    predict_at = tf.function(
        lambda images, boxes, looks: model(images, training=False, boxes=boxes, looks=looks)["local_probs"],
        autograph=False,
    )
    look_at = tf.function(
        lambda images, boxes: tf.sigmoid(tf.reduce_max(model.look_at(images, boxes), axis=1)), autograph=False
    )
    collected: dict[str, list[dict[str, Array]]] = {name: [] for name in forms}

    def ask_model(batch: PictureBatch, whole_levels: bool) -> tuple[PictureBatch, dict[str, Array]]:
        images = np.round(batch["image"]) if whole_levels else batch["image"]
        return batch | {"image": images}, {key: value.numpy() for key, value in predict(images).items()}

    def compare(answer: Answer, batch: PictureBatch, ours: dict[str, Array]) -> dict[str, Array]:
        theirs, expected = answer(batch), {"local_probs": ours["local_probs"]}
        if model.top_n and np.isfinite(theirs["boxes"]).all():  # cropping at NaN would fail
            looks = looks_of(theirs, model.look_band, model.look_doubt)
            expected["local_probs"] = predict_at(batch["image"], theirs["boxes"], looks).numpy()
        if LOOKED_AT in theirs and np.isfinite(theirs[LOOKED_AT]).all():
            expected[LOOK_AT] = look_at(batch["image"], theirs[LOOKED_AT]).numpy()
        return _compare(ours, theirs, expected, batch, half_a_pixel=0.5 / model.image_size)

    for batch in batches:
        seen: dict[
            bool, tuple[PictureBatch, dict[str, Array]]
        ] = {}  # the batch and the model's outputs for it
        for name, form in forms.items():
            ways = [(form.answer, form.whole_levels)]
            # The pixel input leads to the same network, which is compared anyway: one batch shows that it works.
            if form.answer_pixels and not collected[name]:
                ways.append((form.answer_pixels, True))
            found = []
            for answer, whole_levels in ways:
                if whole_levels not in seen:
                    seen[whole_levels] = ask_model(batch, whole_levels)
                found.append(compare(answer, *seen[whole_levels]))
            largest = {
                key: np.maximum.reduce([columns[key] for columns in found])
                for key in ("global_difference", "local_difference")
            }
            collected[name].append(found[0] | largest)
    if not any(collected.values()):
        raise ValueError("There are no pictures to compare the exported model on.")
    return {
        name: _summarize({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
        for name, parts in collected.items()
    }


def looks_of(outputs: Mapping[str, Array], band: Sequence[float] | None, doubt: float = 0.0) -> Array:
    """Which of its regions a form looked at, (P, N) bool, from its outputs.

    Band and doubt are step functions of probabilities, as the localizer is one of maps: at an edge, rounding
    decides. There a region was not looked at if its probability is the global one.
    """
    probs = np.take_along_axis(outputs["global_probs"], outputs["box_classes"], axis=1)
    if band is None and not doubt:
        return np.ones(probs.shape, bool)
    low, high = band or (0.0, 1.0)
    found = doubt_of(outputs["global_probs"])[:, np.newaxis]
    at_an_edge = np.broadcast_to(abs(found - doubt) < DOUBT_EDGE, probs.shape) & (doubt > 0)
    for edge in {low, high} - {0.0, 1.0}:  # nothing lies beyond these two
        at_an_edge |= abs(probs - edge) < EDGE
    another = (
        abs(outputs["box_probs"] - probs) > 1e-6
    )  # not `!=`: a sigmoid's last bit depends on its place in memory
    return np.where(at_an_edge, another, (low <= probs) & (probs <= high) & (found >= doubt))


def missed_bars(bar: Bar, parity: Parity) -> list[str]:
    """The limits that a form exceeds, in words."""
    mean_ap_loss = parity.mean_ap_loss if parity.pictures >= MIN_PICTURES_FOR_MEAN_AP else None
    measured = {
        "global probabilities differ by": (parity.global_difference, bar.global_difference),
        "local probabilities, given the same boxes, differ by": (
            parity.local_difference,
            bar.local_difference,
        ),
        "mAP is lower by": (mean_ap_loss, bar.mean_ap_loss),
    }
    # NaN is never an answer, in any precision. It compares as false, hence `not <=`.
    return [f"{name} is not a number" for name in parity.unknown] + [
        f"{what} {value:.2g}, at most {most:g} is allowed"
        for what, (value, most) in measured.items()
        if value is not None and most is not None and not value <= most
    ]


def parity_lines(parities: Mapping[str, Parity]) -> list[str]:
    """A readable table of how far each form is from the model."""
    width = max(len("against the model"), *(len(name) for name in parities))

    def line(name: str, *cells: str) -> str:
        widths = (10, 10, 8, 11, 11, 10, 8)
        return f"{name:{width}}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))

    lines = [
        f"{'':{width}}{'difference of probs':>20}{'the same regions, %':>20}{'mAP, %':>28}",
        line("against the model", "global", "local", "class", "class, box", "mean IoU", "model", "form"),
    ]
    for name, parity in parities.items():
        differences = f"{parity.global_difference:.1e}", f"{parity.local_difference:.1e}"
        shares = percent(parity.same_classes), percent(parity.same_boxes), f"{parity.box_iou:.3f}"
        lines.append(
            line(
                name,
                *differences,
                *shares,
                *(percent(m, 2) for m in (parity.model_mean_ap, parity.form_mean_ap)),
            )
        )
    return lines


def match_boxes(
    ours: dict[str, Array], theirs: dict[str, Array], half_a_pixel: float
) -> tuple[Array, Array, Array]:
    """For each of our regions, (B, N): do they have its class too, do the boxes agree, and the boxes' IoU."""
    pairs = ours["box_classes"][:, :, np.newaxis] == theirs["box_classes"][:, np.newaxis]  # (B, N, N)
    found, place = pairs.any(axis=2), pairs.argmax(axis=2)
    one = ours["boxes"]
    other = np.take_along_axis(theirs["boxes"], place[..., np.newaxis], axis=1)
    same = found & (np.abs(one - other) <= half_a_pixel).all(axis=2)
    overlap = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    intersection = np.clip(overlap, 0, None).prod(axis=2)
    area = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=2) for boxes in (one, other)]
    return found, same, intersection / (area[0] + area[1] - intersection)


def _compare(
    ours: dict[str, Array],
    theirs: dict[str, Array],
    expected: dict[str, Array],
    batch: PictureBatch,
    half_a_pixel: float,
) -> dict[str, Array]:
    """The columns for `_summarize`, one row per picture. `expected`: our local outputs, given their boxes."""
    columns: dict[str, Array] = {name: batch[name] for name in ("labels", "weights") if name in batch}
    columns |= {"our_probs": ours["probs"], "their_probs": theirs["probs"]}
    columns["global_difference"] = np.abs(theirs["global_probs"] - ours["global_probs"])
    if GLOBAL_ONLY in theirs:
        alone = np.abs(theirs[GLOBAL_ONLY] - ours["global_probs"])
        columns["global_difference"] = np.maximum(columns["global_difference"], alone)
    columns["local_difference"] = np.maximum.reduce(
        [np.abs(theirs[name] - probs) for name, probs in expected.items()]
    )
    if ours["box_classes"].size:
        columns["found"], columns["same"], columns["iou"] = match_boxes(ours, theirs, half_a_pixel)
    return columns


def _summarize(columns: dict[str, Array]) -> Parity:
    ours, theirs = columns["our_probs"], columns["their_probs"]
    # In a model without regions, none can differ.
    found, same, iou = (columns.get(name, np.ones((1, 1), bool)) for name in ("found", "same", "iou"))
    return Parity(
        pictures=len(ours),
        global_difference=float(columns["global_difference"].max()),
        local_difference=float(columns["local_difference"].max()),
        same_classes=float(found.mean()),
        same_boxes=float(same.mean()),
        box_iou=float(iou[found].mean()) if found.any() else 0.0,
        same_top_label=float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        model_mean_ap=_mean_ap(columns, ours),
        form_mean_ap=_mean_ap(columns, theirs),
    )


def _mean_ap(columns: dict[str, Array], probs: Array) -> float | None:
    """mAP; None if no class is known to be in any picture, NaN if any probability is NaN."""
    if "labels" not in columns:
        return None
    if np.isnan(probs).any():
        return float("nan")
    mean_ap = mean_average_precision(columns["labels"], probs, columns["weights"])
    return None if np.isnan(mean_ap) else mean_ap
