"""Finds what a model sees of a case: the picture, and the region that the class's map points at in it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
    boxes_of = box_finder(load_audited(run).model)
    with naming_shards(run.split.files):
        for sample, picture in read_samples(run.split.files):
            if sample.id in classes_of:
                classes = classes_of[sample.id]
                pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
                boxes = dict(
                    zip(classes, boxes_of(picture.encoded, picture.orientation, classes), strict=True)
                )
                yield sample.id, Seen(picture.encoded, pixels.numpy(), sample.present, boxes)


def box_finder(model: "MCAR") -> Callable[[bytes, int, Sequence[int]], list[Box]]:
    """From a picture, its orientation and classes to the box of each class's map, however improbable the class."""
    import tensorflow as tf

    from pipelines.decode import decode_and_resize

    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32), tf.TensorSpec([None], tf.int32)]

    # One by one, its operations take 17 times as long.
    @tf.function(input_signature=signature, autograph=False)
    def find(encoded: tf.Tensor, orientation: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        image = decode_and_resize(encoded, orientation, model.image_size)[tf.newaxis]
        features, _ = model.global_pass(image, training=False)
        return tf.clip_by_value(model.find_boxes(features, classes[tf.newaxis], image)[0], 0.0, 1.0)

    def boxes_of(encoded: bytes, orientation: int, classes: Sequence[int]) -> list[Box]:
        boxes = find(tf.constant(encoded), tf.constant(orientation), tf.constant(list(classes)))
        return [tuple(map(float, box)) for box in boxes.numpy()]  # type: ignore[misc]

    return boxes_of
