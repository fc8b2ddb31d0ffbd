"""Draws the labelled regions that `predict` found into copies of the pictures."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mcar_tf.evaluating.answers import Answer
from mcar_tf.reporting.drawing import draw_regions, encode_png, give_room
from mcar_tf.reporting.regions import make_title
from pipelines.pictures import see_file

MAX_STEM_BYTES = 200


def draw_each(predictions: Iterable[Answer], folder: Path) -> Iterator[Answer]:
    """Pass each prediction on as it comes, after drawing it into a numbered picture in `folder`."""
    for number, prediction in enumerate(predictions, start=1):
        if "error" in prediction:
            yield prediction
            continue
        file = Path(prediction["image"])
        # A file name may have up to 255 bytes: a long one is shortened to leave room for the number.
        stem = os.fsdecode(os.fsencode(file.stem)[:MAX_STEM_BYTES])
        draw(file, prediction, folder / f"{number:05d}-{stem}.png")
        yield prediction


def draw(file: Path, prediction: Answer, path: Path) -> None:
    """Draw the regions of predicted classes whose global probability is high enough to be shown (rule of Fig. 6).

    Predicted classes without such a region are named in a corner, so that the picture shows the whole answer.
    """
    labels = [label for label in prediction["labels"] if label.get("present", True)]
    predicted = {label["class"] for label in labels}
    shown = [r for r in prediction["regions"] if r["class"] in predicted and r["global_prob"] > 0.1]
    titles, boxed = [_title(region) for region in shown], {region["class"] for region in shown}
    captions = [_title(label) for label in labels if label["class"] not in boxed]
    pixels = give_room(see_file(file))
    drawn = draw_regions(pixels, [region["box"] for region in shown], titles, captions=captions)
    path.write_bytes(encode_png(drawn))


def _title(found: Answer) -> str:
    return make_title(found["class"], found["global_prob"], found["prob"])
