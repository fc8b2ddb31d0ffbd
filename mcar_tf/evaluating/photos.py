"""Image files in, what a model says of each out, batch by batch as they are read."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from mcar_tf.evaluating.answers import Answer
from mcar_tf.evaluating.predictions import check_numbers
from pipelines.decode import decode_and_resize, read_orientation

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
                    encoded = read_encoded(file)
                    batch.append((file, decode_and_resize(encoded, read_orientation(encoded), image_size)))
                except (OSError, ValueError, SyntaxError, tf.errors.OpError) as error:
                    reason = " ".join(str(error).split(" <_io")[0].split())[:80]
                    unreadable.append(f"{file} ({reason})")
                bar.update()
            if batch:
                outputs = {k: v.numpy() for k, v in look(tf.stack([image for _, image in batch])).items()}
                check_numbers(outputs, [str(file) for file, _ in batch])
                for i, (file, _) in enumerate(batch):
                    row = {name: value[i] for name, value in outputs.items()}
                    yield describe(file, row, classes, thresholds)


def read_encoded(file: Path) -> bytes:
    """A file as JPEG or PNG bytes: its own, or for another format a PNG of its first frame.

    Raises:
        OSError, ValueError, SyntaxError: what Pillow raises for what is no picture.
    """
    encoded = file.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        if image.format in ("JPEG", "PNG"):
            return encoded
        png = io.BytesIO()
        image.convert("RGBA" if image.has_transparency_data else "RGB").save(png, "PNG")
        return png.getvalue()


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
