"""Predicts the pictures of one shard with a SavedModel, and writes the shard whole or not at all."""

import dataclasses
import errno
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mcar_tf.bulk.listing import read_list
from mcar_tf.bulk.task import Counts, ShardTask, read_counts
from mcar_tf.evaluating.answer_files import answers_writer
from mcar_tf.evaluating.answers import Answer
from mcar_tf.evaluating.photos import decode_pixels, describe, read_ahead
from mcar_tf.evaluating.predictions import check_numbers
from mcar_tf.serving.served_model import DEFAULT_SIGNATURE, ServedModel
from pipelines.files import remove, write_text, written_whole
from pipelines.input_pipeline import read_samples
from pipelines.pictures import BadPicture, Picture, read_file, read_picture

# What the system says of a single file, as often as it is asked. All else may be the storage's.
OWN_ERRORS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EINVAL)


def predict_shard(task: ShardTask, shard: int, load_model: Callable[[], ServedModel]) -> Counts:
    """Predict a shard, unless that is done already. Unreadable pictures go to a file of their own, if there are any.

    Args:
        task: how.
        shard: its number.
        load_model: gives the model.
    """
    done = read_counts(task, shard)
    if done:
        return done
    model = load_model()
    pictures = _read_pictures(task, read_list(task.folder, shard))
    unreadable: list[Answer] = []
    readable = 0
    with (
        written_whole(task.path(shard)) as partial,
        answers_writer(partial, task.format, task.all_classes) as write,
    ):
        for answer in answer_pictures(model, pictures, task):
            if "error" in answer:
                unreadable.append(answer)
            else:
                write(answer)
                readable += 1
    remove(task.path(shard, "unreadable"))
    if unreadable:
        with (
            written_whole(task.path(shard, "unreadable")) as partial,
            answers_writer(partial, task.format, task.all_classes) as write,
        ):
            for answer in unreadable:
                write(answer)
    counts = Counts(readable, len(unreadable))
    write_text(task.note(shard), json.dumps(dataclasses.asdict(counts)) + "\n")
    return counts


def answer_pictures(
    model: ServedModel, pictures: Iterable[tuple[str, Picture | str]], task: ShardTask
) -> Iterator[Answer]:
    """The answer for each picture, or why it can't be read, in their order, as `predict_files` gives them."""
    thresholds = np.asarray(model.thresholds if task.threshold is None else task.threshold, np.float64)
    thresholds = np.broadcast_to(thresholds, len(model.labels))
    waiting = iter(pictures)
    while read := list(itertools.islice(waiting, task.batch_size)):
        outputs, valid = _look(model, [picture for _, picture in read if isinstance(picture, Picture)])
        if not valid.all():
            # Decoding showed the damage. The others are looked at once more, without the damaged ones: sums of
            # floats can depend on the number of pictures in a batch, and rows must not depend on damaged ones.
            marks = iter(valid)
            read = [
                (name, picture if isinstance(picture, str) or next(marks) else _damage(picture, task))
                for name, picture in read
            ]
            outputs, valid = _look(model, [picture for _, picture in read if isinstance(picture, Picture)])
        if valid.size:
            check_numbers(outputs, [name for name, picture in read if isinstance(picture, Picture)])
        rows = iter({name: value[i] for name, value in outputs.items()} for i in range(valid.size))
        for name, picture in read:
            if isinstance(picture, str):
                yield {"image": name, "labels": [], "regions": [], "error": picture}
            else:
                yield describe(name, next(rows), model.labels, thresholds, task.all_classes)


def _read_pictures(task: ShardTask, names: list[str]) -> Iterator[tuple[str, Picture | str]]:
    if task.of_records:
        return ((sample.id, picture) for sample, picture in read_samples([Path(name) for name in names]))
    files = read_ahead([Path(name) for name in names], _read, ahead=2 * task.batch_size)
    return ((str(file), picture) for file, picture in files)


def _read(file: Path) -> Picture:
    """A file's picture.

    Raises:
        BadPicture, FileNotFoundError: that is what the file is like: it becomes a row.
        OSError: the storage failed, for now: the shard fails, and is predicted again.
    """
    try:
        encoded = read_file(file)
    except BadPicture as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno not in OWN_ERRORS:
            raise error.__cause__ from None
        raise
    return read_picture(encoded)


def _look(model: ServedModel, pictures: list[Picture]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The model's outputs for pictures, and which of them could be decoded."""
    if not pictures:
        return {}, np.ones(0, bool)
    encoded = np.array([picture.encoded for picture in pictures], object)
    outputs = dict(model.run(DEFAULT_SIGNATURE, {"encoded": encoded}))
    return outputs, outputs.pop("valid")


def _damage(picture: Picture, task: ShardTask) -> str:
    """Why a picture can't be decoded."""
    try:
        decode_pixels(picture, task.image_size)
    except BadPicture as error:
        return str(error)
    return "is damaged or cut off"
