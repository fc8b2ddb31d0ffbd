"""Runs a model on image files, batch by batch as they are read, and on pictures in memory."""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from mcar_tf.evaluating.answers import Answer
from mcar_tf.evaluating.looks import count_looks
from mcar_tf.evaluating.predictions import check_numbers
from pipelines.decode import decoder
from pipelines.pictures import (
    BadPicture,
    Picture,
    describe_damage,
    encode_png,
    read_file,
    read_picture,
    reading_threads,
)

if TYPE_CHECKING:
    import keras

Content = TypeVar("Content")
Array = npt.NDArray[Any]
Source = Union[Path, "InMemory"]


def predict_files(
    model: "keras.Model",
    files: Sequence[Source],
    classes: Sequence[str],
    unreadable: list[str],
    *,
    image_size: int,
    batch_size: int = 16,
    threshold: npt.ArrayLike = 0.6,
    all_classes: bool = False,
    looks: list[int] | None = None,
) -> Iterator[Answer]:
    """The model's answer for each file, or why the file can't be read, in the order of the files.

    Args:
        model: a model with the outputs of `mcar_tf.models.mcar.MCAR`.
        files: the image files, or pictures in memory.
        classes: C names.
        unreadable: the name of each file that can't be read is appended, with the reason.
        image_size: side in px that images are resized to.
        batch_size: images per batch.
        threshold: the probability at which a class becomes a label; one number, or one per class (C,).
        all_classes: whether classes below their threshold are listed too.
        looks: if given, the number of regions that were looked at is appended for each readable image.
    """
    look = _compiled_look(model, image_size)
    thresholds = np.broadcast_to(np.asarray(threshold, np.float64), len(classes))
    pictures = read_ahead(files, lambda file: read_pixels(file, image_size), ahead=2 * batch_size)
    with tqdm(total=len(files), desc="predicting", unit=" images", disable=None, leave=False) as bar:
        while read := list(itertools.islice(pictures, batch_size)):
            batch = [(file, pixels) for file, pixels in read if not isinstance(pixels, str)]
            outputs: dict[str, Array] = {}
            if batch:
                images = np.stack([pixels for _, pixels in batch])
                outputs = {name: value.numpy() for name, value in look(images).items()}
                check_numbers(outputs, [str(file) for file, _ in batch])
                if looks is not None:
                    rules = getattr(model, "look_band", None), getattr(model, "look_doubt", 0.0)
                    looks += count_looks(outputs["global_probs"], outputs["box_classes"], *rules).tolist()
            rows = iter({name: value[i] for name, value in outputs.items()} for i in range(len(batch)))
            for file, pixels in read:
                if isinstance(pixels, str):
                    unreadable.append(f"{file} {pixels}")
                    yield {"image": str(file), "labels": [], "regions": [], "error": pixels}
                else:
                    yield describe(str(file), next(rows), classes, thresholds, all_classes)
                bar.update()


class InMemory(NamedTuple):
    """A picture that lies in no file: encoded, or what is wrong with it."""

    name: str
    encoded: bytes
    damage: str = ""

    def __str__(self) -> str:
        return self.name


def as_source(picture: str | os.PathLike[str] | Image.Image | Array, name: str) -> Source:
    """What `predict_files` reads a picture from.

    Args:
        picture: a path; an image of Pillow's; or an array, (H, W), (H, W, 3) or (H, W, 4) uint8.
        name: of a picture that lies in no file.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(picture, str | os.PathLike):
        return Path(picture) if Path(picture).exists() else InMemory(str(picture), b"", "does not exist")
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,), (4,)) or picture.ndim < 2:
            raise ValueError(
                "An array must hold one picture in whole levels: (H, W), (H, W, 3) or (H, W, 4) uint8. Received:"
                f" {picture.shape} {picture.dtype}"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(
            f"A picture must be a path, an image of Pillow's or an array of NumPy's; {name} is none. Received:"
            f" {type(picture).__name__}"
        )
    if 0 in picture.size:
        return InMemory(name, b"", "has no pixels")
    try:
        return InMemory(name, encode_png(picture, compress_level=1))
    except BadPicture as error:
        return InMemory(name, b"", str(error))


@functools.lru_cache(maxsize=2)  # so that answers one by one trace the model only once
def _compiled_look(model: "keras.Model", image_size: int) -> Callable[[Array], dict[str, tf.Tensor]]:
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.float32)],
        autograph=False,
    )


def read_ahead(
    files: Sequence[Source], read: Callable[[Any], Content], ahead: int
) -> Iterator[tuple[Source, Content | str]]:
    """Each file with its content, or why it can't be read.

    All cores read files ahead, while the caller uses the earlier ones.

    Args:
        files: the image files, or pictures in memory.
        read: returns a file's content, or raises `BadPicture` or `FileNotFoundError`.
        ahead: how many files are read before they are asked for.
    """

    def try_to_read(file: Source) -> Content | str:
        try:
            return read(file)
        except BadPicture as error:
            return str(error)
        except FileNotFoundError:
            return "is gone"

    waiting: collections.deque[tuple[Source, Future[Content | str]]] = collections.deque()
    left = iter(files)
    pool = reading_threads()
    try:
        for file in left:
            waiting.append((file, pool.submit(try_to_read, file)))
            if len(waiting) > ahead:
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        while waiting:
            first, pixels = waiting.popleft()
            yield first, pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_pixels(file: Source, image_size: int) -> Array:
    """A file's picture, as `decode_pixels` returns it.

    Raises:
        BadPicture: the file can't be decoded.
        FileNotFoundError: the file does not exist.
    """
    if isinstance(file, InMemory) and file.damage:
        raise BadPicture(file.damage)
    encoded = file.encoded if isinstance(file, InMemory) else read_file(file)
    return decode_pixels(read_picture(encoded), image_size)


def decode_pixels(picture: Picture, image_size: int) -> Array:
    """A picture upright and resized to a square, (S, S, 3) float32 in [0, 255].

    Raises:
        BadPicture: it can't be decoded.
    """
    try:
        pixels: Array = decoder(image_size)(
            tf.constant(picture.encoded), tf.constant(picture.orientation, tf.int64)
        ).numpy()
    except tf.errors.OpError as error:
        raise BadPicture(describe_damage(error)) from error
    return pixels


def describe(
    name: str,
    outputs: Mapping[str, Array],
    classes: Sequence[str],
    thresholds: Array,
    all_classes: bool = False,
) -> Answer:
    """The answer for one image from the model's outputs: labels that reach their threshold, and all regions.

    Labels are sorted by probability, the highest first; regions have the model's order. With `all_classes`, every
    class is a label, and `present` says which of them reach their threshold.
    """
    present = outputs["probs"] >= thresholds
    order = (-outputs["probs"]).argsort(kind="stable")
    labels = [
        {
            "class": classes[c],
            "prob": float(outputs["probs"][c]),
            "global_prob": float(outputs["global_probs"][c]),
            "local_prob": float(outputs["local_probs"][c]),
            **({"present": bool(present[c])} if all_classes else {}),
        }
        for c in order
        if all_classes or present[c]
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
    return {"image": name, "labels": labels, "regions": regions}
