"""Image files in, what a model says of each out, batch by batch as they are read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tqdm import tqdm

from mcar_tf.evaluating.answers import Answer
from mcar_tf.evaluating.predictions import check_numbers
from pipelines.decode import decode_and_resize
from pipelines.pictures import BadPicture, describe_damage, read_file, read_picture

Array = npt.NDArray[Any]


def predict_files(
    model: keras.Model,
    files: Sequence[Path],
    classes: Sequence[str],
    unreadable: list[str],
    *,
    image_size: int,
    batch_size: int = 16,
    threshold: npt.ArrayLike = 0.6,
) -> Iterator[Answer]:
    """What the model says of each file that can be read.

    Args:
        model: gives the outputs of `mcar_tf.models.mcar.MCAR`.
        files: of images.
        classes: C names.
        unreadable: gets the name of each file that can't be read, with the reason.
        image_size: side in px that images are resized to.
        batch_size: images at a time.
        threshold: from which probability on a class is a label; one number, or one per class (C,).
    """
    look = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.float32)],
    )
    thresholds = np.broadcast_to(np.asarray(threshold, np.float64), len(classes))
    with tqdm(total=len(files), desc="predicting", unit=" images", disable=None, leave=False) as bar:
        for start in range(0, len(files), batch_size):
            batch: list[tuple[Path, Any]] = []
            for file in files[start : start + batch_size]:
                try:
                    batch.append((file, read_pixels(file, image_size)))
                except (BadPicture, FileNotFoundError) as error:
                    unreadable.append(
                        f"{file} {error}" if isinstance(error, BadPicture) else f"{file} is gone"
                    )
                bar.update()
            if batch:
                outputs = {k: v.numpy() for k, v in look(tf.stack([image for _, image in batch])).items()}
                check_numbers(outputs, [str(file) for file, _ in batch])
                for i, (file, _) in enumerate(batch):
                    row = {name: value[i] for name, value in outputs.items()}
                    yield describe(file, row, classes, thresholds)


def read_pixels(file: Path, image_size: int) -> tf.Tensor:
    """A picture upright and resized to a square, (S, S, 3) float32 in [0, 255].

    Raises:
        BadPicture, FileNotFoundError: it can't be.
    """
    picture = read_picture(read_file(file))
    try:
        return decode_and_resize(tf.constant(picture.encoded), tf.constant(picture.orientation), image_size)
    except tf.errors.OpError as error:
        raise BadPicture(describe_damage(error)) from error


def describe(file: Path, outputs: Mapping[str, Array], classes: Sequence[str], thresholds: Array) -> Answer:
    """The model's outputs for one image in words: labels above their threshold and all regions, likeliest first."""
    order = (-outputs["probs"]).argsort(kind="stable")
    labels = [
        {
            "class": classes[c],
            "prob": float(outputs["probs"][c]),
            "global_prob": float(outputs["global_probs"][c]),
            "local_prob": float(outputs["local_probs"][c]),
        }
        for c in order
        if outputs["probs"][c] >= thresholds[c]
    ]
    regions = [
        {
            "class": classes[c],
            "prob": float(outputs["probs"][c]),
            "global_prob": float(outputs["global_probs"][c]),
            "region_prob": float(prob),
            "box": [round(float(side), 6) for side in box],  # ymin xmin ymax xmax, fractions of the image
        }
        for box, c, prob in zip(outputs["boxes"], outputs["box_classes"], outputs["box_probs"], strict=True)
    ]
    return {"image": str(file), "labels": labels, "regions": regions}
