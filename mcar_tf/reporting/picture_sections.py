"""An evaluated run and pictures of its set in, the report's sections with pictures out: errors and regions."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mcar_tf.reporting import drawing, page
from mcar_tf.reporting.choosing import Selection, find_class_map, region_clarity
from mcar_tf.reporting.evaluated_run import EvaluatedRun, regions_of
from mcar_tf.reporting.page import Html
from pipelines.words import percent

Array = npt.NDArray[Any]

MAX_SIDE = 640  # px of a picture in the report


def error_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """The worst misses and the worst false claims."""
    predictions = run.predictions
    counts, shown = predictions.weights > 0, predictions.labels > 0
    parts = []
    for kind, title in (
        ("Missed", "In the picture, and least believed"),
        ("Claimed", "Not in the picture, and most believed"),
    ):
        items = []
        for row in selection[kind.lower()]:
            if kind == "Missed":
                c = int(np.where(shown[row] & counts[row], predictions.probs[row], np.inf).argmin())
            else:
                c = int(np.where(~shown[row] & counts[row], predictions.probs[row], -np.inf).argmax())
            caption = f"{kind} {run.classes[c]}, {_prob(predictions.probs[row, c])}. {_truth(run, row)}"
            items.append(_region_picture(run, row, images[row], caption))
        if items:
            parts += [page.heading(title), page.gallery(items)]
    return parts or [page.paragraph("None: at this threshold every class of every picture is right.")]


def gallery_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """Pictures with their regions (Fig. 6), and how one region was found (Fig. 2)."""
    if not run.config.top_n:
        return []
    parts = localization_parts(run.localization) if run.localization else []
    if not selection["looked_at"]:
        return [
            *parts,
            page.paragraph(
                "No picture has a region whose class has a global probability > 0.1 and a fused one > 0.6."
            ),
        ]
    parts += [
        page.paragraph(
            "Regions whose class has a global probability > 0.1 and a fused one > 0.6, titled “class: global /"
            " fused”, in pictures drawn at random among those that have any."
        ),
        page.gallery(
            _region_picture(run, row, images[row], _truth(run, row)) for row in selection["looked_at"]
        ),
    ]
    row = selection["localized"][0]
    region = max(regions_of(run, row), key=lambda region: region_clarity(run, row, region))
    class_map = find_class_map(run, images[row], run.classes.index(region.class_name))
    drawn = drawing.draw_localization(
        images[row], class_map, region.box, region.title, run.config.tau, run.config.image_size
    )
    caption = (
        f"Over the picture the activation map of {region.class_name} (red is high); above and beside it the largest"
        f" value of each column and row, scaled to 0 to 1. The region is where both reach {run.config.tau:g} (dashed)"
        f" about their peaks. {run.predictions.ids[row]}"
    )
    return [
        *parts,
        page.heading("How a region is found"),
        page.figures([page.picture(drawing.encode_png(drawn), "png", caption)]),
    ]


def localization_parts(found: Mapping[str, Any]) -> list[Html]:
    """How well regions find objects, beside what looking nowhere finds."""
    keys = ("pointing_accuracy", "objects_covered_30", "objects_covered_50")
    rows = [
        [name, *(percent(part[key]) for key in keys)]
        for name, part in (("regions", found), ("the whole picture", found["whole_image"]))
    ]
    return [
        page.paragraph(
            f"No box was trained on. Pointing: of {found['regions']} regions whose class is in the picture, those"
            f" with their centre in an object of it. IoU: of {found['objects']} objects, those that overlap so much"
            " with the region of their class."
        ),
        page.table(["%", "pointing", "IoU ≥ 0.3", "IoU ≥ 0.5"], rows),
    ]


def _prob(prob: float) -> str:
    return "p < 0.01" if prob < 0.01 else f"p = {prob:.2f}"


def _region_picture(run: EvaluatedRun, row: int, image: Array, caption: str) -> Html:
    regions = regions_of(run, row)
    drawn = Image.fromarray(
        drawing.draw_regions(
            drawing.enlarge(image), [region.box for region in regions], [region.title for region in regions]
        )
    )
    drawn.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=88)
    return page.picture(file.getvalue(), "jpeg", f"{caption} {run.predictions.ids[row]}")


def _truth(run: EvaluatedRun, row: int) -> str:
    shown = [run.classes[c] for c in np.flatnonzero(run.predictions.labels[row] > 0)]
    return f"In the picture: {', '.join(shown) or 'none of the classes'}."
