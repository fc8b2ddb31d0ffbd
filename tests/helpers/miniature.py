"""Miniature raw sets, written on the spot: a VOC devkit, a COCO download, pictures of one's own."""

import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from pipelines.readers.classes import COCO_CATEGORIES, VOC_CLASSES

WIDTH, HEIGHT = 40, 20

# Picture -> its objects: class, difficult, xmin ymin xmax ymax in the devkit's px (from 1, the last included).
VOC_OBJECTS = {
    "000001": [("dog", 0, (1, 1, 40, 20)), ("person", 1, (11, 6, 20, 15))],
    "000002": [("person", 1, (1, 1, 10, 10)), ("person", 0, (21, 11, 40, 20))],
    "000003": [("cat", 0, (5, 5, 8, 8))],
    "000004": [("train", 1, (5, 5, 8, 8))],
    "000005": [("bird", 0, (1, 1, 2, 2)), ("tvmonitor", 0, (3, 3, 4, 4))],
}
# Picture -> what the per-class lists say of it: 1 present, 0 difficult only; all else is -1.
VOC_STATES = {
    "000001": {"dog": 1, "person": 0},
    "000002": {"person": 1},
    "000003": {"cat": 1},
    "000004": {"train": 0},
    "000005": {"bird": 1, "tvmonitor": 1},
}
VOC_LISTS = {
    "train": ["000001", "000002"],
    "val": ["000003", "000004"],
    "trainval": ["000001", "000002", "000003", "000004"],
    "test": ["000005"],
}


def write_voc(folder: Path, year: int = 2007, lists: dict[str, list[str]] = VOC_LISTS) -> Path:
    """`<folder>/VOCdevkit/VOC<year>` with the five pictures above; returns that folder."""
    root = folder / "VOCdevkit" / f"VOC{year}"
    for sub in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / sub).mkdir(parents=True)
    for number, (id, objects) in enumerate(VOC_OBJECTS.items()):
        (root / "JPEGImages" / f"{id}.jpg").write_bytes(jpeg(number))
        if year == 2012 and id in lists.get("test", ()):
            continue  # as in the real one: its test set has no labels
        entries = "".join(
            f"<object><name>{name}</name><pose>Frontal</pose><truncated>0</truncated>"
            f"<difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
            "<part><name>head</name></part></object>"
            for name, difficult, box in objects
        )
        (root / "Annotations" / f"{id}.xml").write_text(
            f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{entries}</annotation>"
        )
    main = root / "ImageSets" / "Main"
    for name, ids in lists.items():
        (main / f"{name}.txt").write_text("".join(f"{id}\n" for id in ids))
        for label in VOC_CLASSES if (year, name) != (2012, "test") else ():
            lines = [f"{id} {VOC_STATES[id].get(label, -1):2d}\n" for id in ids]
            (main / f"{label}_{name}.txt").write_text("".join(lines))
    return root


def write_coco(folder: Path, year: int = 2014) -> Path:
    """A COCO download: three pictures to train, one of them without labels, and one to test."""
    for part in ("train", "val"):
        (folder / f"{part}{year}").mkdir(parents=True)
    (folder / "annotations").mkdir()
    train = [coco_image(9), coco_image(25), coco_image(30)]
    objects = [
        coco_object(1, 9, 18, [10, 5, 20, 10]),  # dog
        coco_object(2, 9, 1, [0, 0, 40, 20]),  # person
        coco_object(3, 9, 18, [0, 0, 4, 4]),
        coco_object(4, 30, 90, [39, 19, 5, 5], iscrowd=1),  # toothbrush, and its box leaves the picture
    ]
    write_json(folder / "annotations" / f"instances_train{year}.json", train, objects)
    write_json(
        folder / "annotations" / f"instances_val{year}.json",
        [coco_image(42)],
        [coco_object(5, 42, 13, [1, 1, 2, 2])],
    )
    for number, part in ((9, "train"), (25, "train"), (30, "train"), (42, "val")):
        (folder / f"{part}{year}" / f"{number:012d}.jpg").write_bytes(jpeg(number))
    return folder


def coco_image(id: int) -> dict:
    return {"id": id, "file_name": f"{id:012d}.jpg", "width": WIDTH, "height": HEIGHT}


def coco_object(id: int, image_id: int, category_id: int, bbox: list[float], iscrowd: int = 0) -> dict:
    outline = {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": 4.0}
    return {
        "id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": iscrowd, **outline
    }  # fmt: skip


def write_json(
    path: Path, images: list[dict], annotations: list[dict], categories: list[dict] | None = None
) -> None:
    if categories is None:
        categories = [{"id": id, "name": name} for id, name in reversed(COCO_CATEGORIES.items())]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def jpeg(shade: int) -> bytes:
    """A grey JPEG of 40 x 20 px, another one for each shade."""
    encoded = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (shade, shade, shade)).save(encoded, "JPEG")
    return encoded.getvalue()


def real_data(*parts: str) -> Path:
    """A folder of the real test data; skips the test where there is none."""
    root = os.environ.get("MCAR_TF_TEST_DATA")
    if not root:
        pytest.skip("MCAR_TF_TEST_DATA names no folder of real pictures")
    return Path(root, *parts)
