"""Finds what a model sees of a case: the picture, and the region that the class's map points at in it."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mcar_tf.auditing.cases import Case
from mcar_tf.auditing.runs import AuditedRun, load_audited

if TYPE_CHECKING:
    from mcar_tf.models.mcar import MCAR

Array = npt.NDArray[Any]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Seen:
    """A picture with cases.

    Attributes:
        encoded: the picture as the prepared set has it.
        pixels: (H, W, 3) uint8, upright.
        present: the classes of its labels.
        boxes: class -> ymin xmin ymax xmax, fractions of the upright picture.
    """

    encoded: bytes
    pixels: Array
    present: tuple[int, ...]
    boxes: dict[int, Box]


def see_cases(run: AuditedRun, cases: Sequence[Case]) -> Iterator[tuple[str, Seen]]:
    """Read the pictures of a run's cases, in the shards' order: their ids and what is seen in them."""
    import tensorflow as tf

    from pipelines.decode import decode, turn_upright
    from pipelines.input_pipeline import read_samples
    from pipelines.verify import naming_shards

    classes_of: dict[str, list[int]] = {}
    for case in cases:
        classes_of.setdefault(case.id, []).append(case.class_index)
    if not classes_of:
        return
    model = load_audited(run).model
    with naming_shards(run.split.files):
        for sample, picture in read_samples(run.split.files):
            if sample.id in classes_of:
                classes = classes_of[sample.id]
                pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
                found = find_boxes(model, picture.encoded, picture.orientation, classes)
                boxes = dict(zip(classes, found, strict=True))
                yield sample.id, Seen(picture.encoded, pixels.numpy(), sample.present, boxes)


def find_boxes(model: "MCAR", encoded: bytes, orientation: int, classes: Sequence[int]) -> list[Box]:
    """Where the map of each class points at in a picture, however improbable the class is."""
    import tensorflow as tf

    from pipelines.decode import decode_and_resize

    image = decode_and_resize(tf.constant(encoded), tf.constant(orientation), model.image_size)[tf.newaxis]
    features, _ = model.global_pass(image, training=False)
    boxes = model.find_boxes(features, tf.constant([list(classes)]), image)[0].numpy()
    return [tuple(float(edge) for edge in np.clip(box, 0, 1)) for box in boxes]  # type: ignore[misc]
