"""Makes the report's sections with pictures of an evaluated run: its errors and its regions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mcar_tf.reporting import drawing, page
from mcar_tf.reporting.choosing import Selection, find_class_map
from mcar_tf.reporting.evaluated_run import EvaluatedRun, all_regions, regions_of
from mcar_tf.reporting.page import Html
from mcar_tf.reporting.regions import make_title
from pipelines.words import listed, percent

Array = npt.NDArray[Any]

MAX_SIDE = 640  # px of a picture in the report
RULE = "whose class has a global probability > 0.1 and is predicted"
LEGEND = "Light blue: the class is in the picture; orange: it is not; white: its label does not count."


def error_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """The worst misses and the worst false claims."""
    parts = []
    for kind, title, errors in (
        ("Missed", "In the picture, and least believed", selection.missed),
        ("Claimed", "Not in the picture, and most believed", selection.claimed),
    ):
        items = []
        for row, c in errors.items():
            prob = float(run.predictions.outputs(row)["probs"][c])
            caption = f"{kind} {run.classes[c]}, {_prob(prob)}. {_truth(run, row)}"
            items.append(_region_picture(run, row, images[row], caption, c))
        if items:
            parts += [page.heading(title), page.gallery(items)]
    if not parts:
        return [page.paragraph("None: by these thresholds every class of every picture is right.")]
    return [page.paragraph(f"A picture is shown for the worse of its errors, and once. {LEGEND}"), *parts]


def gallery_parts(run: EvaluatedRun, selection: Selection, images: Mapping[int, Array]) -> list[Html]:
    """Pictures with their regions (Fig. 6), and how one region was found (Fig. 2)."""
    if not run.config.top_n:
        return []
    parts = localization_parts(run.localization) if run.localization else []
    if selection.localized is None:
        what = "left to show" if selection.missed or selection.claimed else ""
        return [*parts, page.paragraph(f"No picture {what} has a region {RULE}.")]
    if selection.looked_at:
        parts += [
            page.paragraph(
                f"Regions {RULE}, titled “class: global / fused”, in pictures drawn at random among those that have"
                f" any and are not shown above. {LEGEND}"
            ),
            page.gallery(
                _region_picture(run, row, images[row], _truth(run, row)) for row in selection.looked_at
            ),
        ]
    row, number = selection.localized
    region = all_regions(run, row)[number]
    class_map = find_class_map(run, images[row], region.class_index)
    drawn = drawing.draw_localization(
        drawing.give_room(images[row]),
        class_map,
        region.box,
        region.title,
        run.config.tau if run.config.localizer == "threshold" else None,
        run.config.image_size,
    )
    if run.config.localizer == "threshold":
        rule = f"is where both reach {run.config.tau:g} (dashed) about their peaks"
    else:
        rule = f"reaches {run.config.box_spread:g} standard deviations of their squares to either side of the mean"
    caption = (
        f"Over the picture the activation map of {region.class_name} (red is high); above and beside it the largest"
        f" value of each column and row, scaled to 0 to 1. The region {rule}."
        f" {run.predictions.ids[row]}"
    )
    return [
        *parts,
        page.heading("How a region is found"),
        page.figures([page.picture(drawing.encode_png(drawn), "png", caption)]),
    ]


def localization_parts(found: Mapping[str, Any]) -> list[Html]:
    """How well regions find objects, compared with the whole image as the region."""
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


def _region_picture(
    run: EvaluatedRun, row: int, image: Array, caption: str, error: int | None = None
) -> Html:
    """A picture with its regions in the colors of `LEGEND`.

    Args:
        run: the run whose regions are drawn.
        row: the picture's row in the predictions.
        image: (H, W, 3).
        caption: the text below the picture.
        error: a class to show in any case: its region, or its name in a corner if it has no region.
    """
    labels, weights = (flags[0] for flags in run.predictions.truth(slice(row, row + 1)))
    regions = regions_of(run, row)
    if error not in [region.class_index for region in regions]:
        regions += [region for region in all_regions(run, row) if region.class_index == error]
    corner = [] if error is None or error in [region.class_index for region in regions] else [error]
    colors = [_color(labels[c], weights[c]) for c in [*(region.class_index for region in regions), *corner]]
    outputs = run.predictions.outputs(row)
    captions = [make_title(run.classes[c], outputs["global_probs"][c], outputs["probs"][c]) for c in corner]
    drawn = drawing.draw_regions(
        drawing.give_room(image),
        [region.box for region in regions],
        [region.title for region in regions],
        colors,
        captions,
    )
    encoded = drawing.encode_jpeg(drawing.at_most(drawn, MAX_SIDE))
    return page.picture(encoded, "jpeg", f"{caption} {run.predictions.ids[row]}")


def _color(present: bool, counts: bool) -> drawing.Color:
    if not counts:
        return drawing.UNCERTAIN
    return drawing.RIGHT if present else drawing.WRONG


def _truth(run: EvaluatedRun, row: int) -> str:
    labels, _ = run.predictions.truth(slice(row, row + 1))
    return (
        f"In the picture: {listed(run.classes[c] for c in np.flatnonzero(labels)) or 'none of the classes'}."
    )
