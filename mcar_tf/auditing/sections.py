"""Makes the page of an audit from its cases: what was found, by class, and the pictures of the likeliest mistakes."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mcar_tf.auditing.cases import Case
from mcar_tf.auditing.evidence import Seen
from mcar_tf.auditing.files import describe
from mcar_tf.evaluating.predictions import Predictions
from mcar_tf.reporting import drawing, page
from mcar_tf.reporting.page import Html
from pipelines.words import listed

MAX_SIDE = 480  # px of a picture on the page, which may hold hundreds
COLORS = {"wrong": drawing.WRONG, "missing": drawing.RIGHT}
TITLES = {"wrong": "Labelled, but likely not there", "missing": "Likely there, but not labelled"}


def summary_parts(parts: Sequence[Predictions], found: Sequence[Case], shown: int) -> list[Html]:
    """What was audited and how much was found."""
    kinds = Counter(case.kind for case in found)
    pictures = sum(len(part) for part in parts)
    return [
        page.cards(
            [
                (f"{len(found):,}", "labels to look at"),
                (f"{kinds['wrong']:,}", "labelled, but likely not there"),
                (f"{kinds['missing']:,}", "likely there, but not labelled"),
                (f"{pictures:,}", "pictures audited"),
            ]
        ),
        page.paragraph(
            "The model never learnt from these pictures. Where it disagrees with a label strongly, by what is usual"
            " for the class, one of the two is mistaken: look, and decide. The likeliest mistakes of the labels come"
            f" first; {shown:,} are shown here, more are in the files beside this page. A frame is where the model"
            " sees the class, or would look for it."
        ),
    ]


def class_parts(classes: Sequence[str], parts: Sequence[Predictions], found: Sequence[Case]) -> list[Html]:
    """A table: each class with any cases, and how many, the most first."""
    count = Counter((case.class_index, case.kind) for case in found)
    labelled = sum(part.label_flags.unpack().sum(axis=0) for part in parts)
    rows = [
        [name, f"{labelled[c]:,}", f"{count[c, 'wrong']:,}", f"{count[c, 'missing']:,}"]
        for c, name in enumerate(classes)
        if count[c, "wrong"] + count[c, "missing"]
    ]
    rows.sort(key=lambda row: -sum(int(cell.replace(",", "")) for cell in row[2:]))
    return [page.table(["class", "labelled", "likely wrong", "likely missing"], rows)] if rows else []


def picture_part(rank: int, case: Case, seen: Seen, classes: Sequence[str]) -> Html:
    """A case: its picture with the region of its class, and what the labels say."""
    drawn = drawing.draw_regions(
        drawing.give_room(drawing.at_most(seen.pixels, MAX_SIDE)),
        [seen.boxes[case.class_index]],
        [f"{classes[case.class_index]}: {case.prob:.2f}"],
        [COLORS[case.kind]],
    )
    labels = listed(classes[c] for c in seen.present) or "none of the classes"
    caption = f"{rank}. {describe(case, classes).capitalize()}. Labels: {labels}. {case.id}"
    return page.picture(drawing.encode_jpeg(drawn), "jpeg", caption)


def gallery_parts(kind: str, cases: Sequence[Case], pictures: Mapping[Case, Html]) -> list[Html]:
    """The pictures of one kind of cases, in their order."""
    shown = [pictures[case] for case in cases if case.kind == kind and case in pictures]
    return [page.gallery(shown)] if shown else []
