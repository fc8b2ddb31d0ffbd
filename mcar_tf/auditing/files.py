"""Writes an audit's cases for other programs: a CSV, tasks for Label Studio, a data set for FiftyOne.

data/00001-<id>.jpg   the pictures, as the prepared set has them
cases.csv             one row a case
labels.json           with data/, a FiftyOneImageDetectionDataset: each case is a detection
label_studio.json     tasks with predictions; label_studio.xml is the labeling interface for them
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from mcar_tf.auditing.cases import Case
from mcar_tf.auditing.evidence import Box
from pipelines.files import write_text
from pipelines.words import csv_text

CASES, PAGE, PICTURES = "cases.csv", "audit.html", "data"
FIFTYONE, LABEL_STUDIO, INTERFACE = "labels.json", "label_studio.json", "label_studio.xml"
ENDINGS = {
    b"\xff\xd8": ".jpg",
    b"\x89P": ".png",
    b"RI": ".webp",
}  # by the first bytes; a record holds no others

Boxes = Mapping[Case, Box]


def describe(case: Case, classes: Sequence[str]) -> str:
    """A case in words: `likely missing: cat (p = 0.93)`."""
    return f"likely {case.kind}: {classes[case.class_index]} (p = {case.prob:.2f})"


def picture_name(number: int, identity: str, encoded: bytes) -> str:
    """The name of a picture's file: its number, and what can be read of its id."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", identity.rsplit("/", 1)[-1].rsplit(".", 1)[0])[:80]
    return f"{number:05d}-{stem}{ENDINGS[encoded[:2]]}"


def write_cases(
    path: Path, cases: Sequence[Case], classes: Sequence[str], boxes: Boxes, pictures: Mapping[str, str]
) -> None:
    """Write `cases.csv`. No cell can be taken for a formula by a spreadsheet.

    Args:
        path: the file.
        cases: in order.
        classes: the C names.
        boxes: the region of each case.
        pictures: id -> name of the picture's file.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "rank",
        "id",
        "class",
        "kind",
        "probability",
        "quality",
        "ymin",
        "xmin",
        "ymax",
        "xmax",
        "picture",
    )
    writer.writerow(head)
    for rank, case in enumerate(cases, start=1):
        numbers = [f"{number:.4f}" for number in (case.prob, case.quality, *boxes[case])]
        cells = [rank, csv_text(case.id), csv_text(classes[case.class_index]), case.kind, *numbers]
        writer.writerow([*cells, f"{PICTURES}/{pictures[case.id]}"])
    write_text(path, text.getvalue())


def write_fiftyone(
    path: Path, cases: Sequence[Case], classes: Sequence[str], boxes: Boxes, pictures: Mapping[str, str]
) -> None:
    """Write the labels of a FiftyOneImageDetectionDataset; arguments as for `write_cases`."""
    labels: dict[str, list[dict[str, Any]]] = {}
    for rank, case in enumerate(cases, start=1):
        ymin, xmin, ymax, xmax = boxes[case]
        labels.setdefault(Path(pictures[case.id]).stem, []).append(
            {
                "label": classes[case.class_index],
                "bounding_box": [xmin, ymin, xmax - xmin, ymax - ymin],
                "confidence": case.prob,
                "attributes": {"kind": case.kind, "rank": rank, "quality": case.quality, "id": case.id},
            }
        )
    write_text(path, json.dumps({"classes": None, "labels": labels}, indent=1) + "\n")


def write_label_studio(
    folder: Path,
    cases: Sequence[Case],
    classes: Sequence[str],
    boxes: Boxes,
    pictures: Mapping[str, str],
    present: Mapping[str, Sequence[int]],
    sizes: Mapping[str, tuple[int, int]],
) -> None:
    """Write tasks whose predictions are the labels as they would be once all cases are mended, and their interface.

    Args:
        folder: where both files go.
        cases: as for `write_cases`, as are the next three.
        classes: the C names.
        boxes: the region of each case.
        pictures: id -> name of the picture's file.
        present: id -> the classes that the picture is labelled with now.
        sizes: id -> height and width of the upright picture, in px.
    """
    cases_of: dict[str, list[Case]] = {}
    for case in cases:
        cases_of.setdefault(case.id, []).append(case)
    tasks = []
    for identity, found in cases_of.items():
        mended = sorted({*present[identity]} ^ {case.class_index for case in found})
        choices = {"choices": [classes[c] for c in mended]}
        results = [{"id": "labels", **_control("labels", "choices"), "value": choices}]
        results += [_rectangle(case, classes, boxes[case], sizes[identity]) for case in found]
        data = {
            "image": f"/data/local-files/?d={PICTURES}/{pictures[identity]}",
            "id": identity,
            "cases": "; ".join(describe(case, classes) for case in found),
        }
        score = 1 - min(case.quality for case in found)
        tasks.append(
            {"data": data, "predictions": [{"model_version": "mcar_tf", "score": score, "result": results}]}
        )
    write_text(folder / LABEL_STUDIO, json.dumps(tasks, indent=1) + "\n")
    write_text(folder / INTERFACE, _interface(classes))


def _control(name: str, kind: str) -> dict[str, str]:
    return {"from_name": name, "to_name": "image", "type": kind}


def _rectangle(case: Case, classes: Sequence[str], box: Box, size: tuple[int, int]) -> dict[str, Any]:
    """The region of a case, in percent; it has no label of its own, so it does not become one."""
    ymin, xmin, ymax, xmax = (100 * edge for edge in box)
    return {
        "id": f"region{case.class_index}",
        **_control("region", "rectangle"),
        "original_width": size[1],
        "original_height": size[0],
        "value": {"x": xmin, "y": ymin, "width": xmax - xmin, "height": ymax - ymin, "rotation": 0},
        "meta": {"text": [describe(case, classes)]},
        "score": case.prob,
    }


def _interface(classes: Sequence[str]) -> str:
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        '<View>\n  <Header value="$cases"/>\n  <Image name="image" value="$image"/>\n'
        '  <Rectangle name="region" toName="image"/>\n'
        f'  <Choices name="labels" toName="image" choice="multiple">\n{choices}\n  </Choices>\n</View>\n'
    )
