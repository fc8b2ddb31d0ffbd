"""Writes predictions in the formats that evaluation servers accept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

COMPETITIONS = ("comp1", "comp2")


def write_voc_results(
    folder: Path,
    ids: Sequence[str] | Array,
    classes: Sequence[str],
    probs: Array,
    split: str = "test",
    competition: str = "comp2",
) -> list[Path]:
    """Write Pascal VOC classification results: one file per class, `<folder>/Main/comp2_cls_test_aeroplane.txt`.

    A line is `<image identifier> <confidence>`, as `VOCevalcls.m` reads it with `textread(file, '%s %f')`.
    With `folder` named `results/VOC2012`, the evaluation server accepts a tar of `results`.

    Args:
        folder: made if it does not exist.
        ids: N file stems, such as `2012_000001`.
        classes: C names.
        probs: (N, C).
        split: the image set that the ids belong to.
        competition: "comp1" for models trained only on VOC's trainval, "comp2" for models that saw any other data
            except VOC's test, for example ImageNet.

    Returns:
        The files.

    Raises:
        ValueError: the competition is another one, a line can't hold an id, or a probability is not finite.
    """
    if competition not in COMPETITIONS:
        raise ValueError(
            f"The competition must be one of {', '.join(COMPETITIONS)}. Received: {competition!r}"
        )
    if not np.isfinite(probs).all():
        raise ValueError("The probabilities must be finite numbers; the model that made them has diverged.")
    if wrong := next((i for i in ids if not i or any(letter.isspace() for letter in i)), None):
        raise ValueError(f"An image identifier must be one word. Received: {wrong!r}")
    (folder / "Main").mkdir(parents=True, exist_ok=True)
    files = []
    for c, name in enumerate(classes):
        file = folder / "Main" / f"{competition}_cls_{split}_{name}.txt"
        # 9 digits keep apart all float32 probabilities whose order matters; the devkit's own %f has only 6.
        file.write_text("".join(f"{i} {p:.9f}\n" for i, p in zip(ids, probs[:, c], strict=True)))
        files.append(file)
    return files


def coco_results(
    ids: Sequence[str] | Array,
    boxes: Array,
    box_classes: Array,
    box_probs: Array,
    sizes: Mapping[str, tuple[int, int]],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Attentional regions in COCO's format of detection results.

    Args:
        ids: N image ids, whole numbers as in COCO.
        boxes: (N, R, 4), fractions of the image.
        box_classes: (N, R).
        box_probs: (N, R), each region's own probability of its class, used as the result's score.
        sizes: id -> (height, width) of the upright image in px.
        category_ids: the official id of each class.

    Returns:
        One `{"image_id", "category_id", "bbox": [x, y, width, height] in px, "score"}` per region.

    Raises:
        ValueError: an id is not a whole number.
    """
    results = []
    for row, identifier in enumerate(ids):
        if not str(identifier).isdigit():
            raise ValueError(f"COCO's image ids are whole numbers. Received: {identifier!r}")
        height, width = sizes[str(identifier)]
        for box, c, prob in zip(boxes[row], box_classes[row], box_probs[row], strict=True):
            ymin, xmin, ymax, xmax = (float(edge) for edge in box)
            bbox = (xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height)
            results.append(
                {
                    "image_id": int(identifier),
                    "category_id": category_ids[c],
                    "bbox": [round(edge, 2) for edge in bbox],
                    "score": round(float(prob), 6),
                }
            )
    return results
