"""Miniatures of the shapes in which labels come, each written into a folder; and what is in them, counted by hand.

Each has six pictures a to f (or numbers), of three classes: cat in a, b, d; dog in b, c; cow in d. None in e and f
unless said otherwise.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniature import jpeg

LABELS = {"a": ["cat"], "b": ["cat", "dog"], "c": ["dog"], "d": ["cat", "cow"], "e": [], "f": []}
CLASSES = ("cat", "cow", "dog")
COUNTS = {"cat": 3, "cow": 1, "dog": 2}  # by eye, from the line above


def pictures(folder: Path, names: str = "abcdef", ending: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{ending}").write_bytes(jpeg(ord(name)))


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def one_hot(folder: Path) -> Path:
    pictures(folder)
    rows = [f"{n}.jpg, {', '.join(str(int(c in of)) for c in CLASSES)}" for n, of in LABELS.items()]
    return write(folder / "labels.csv", "filename, cat, cow, dog", *rows)


def one_hot_in_words(folder: Path) -> Path:
    pictures(folder)
    rows = [f"{n}.jpg,{','.join(str(c in of) for c in CLASSES)}" for n, of in LABELS.items()]
    return write(folder / "labels.csv", "filename,cat,cow,dog", *rows)


def one_hot_yes_no(folder: Path) -> Path:
    pictures(folder)
    rows = [f"{n}.jpg,{','.join('yes' if c in of else 'no' for c in CLASSES)}" for n, of in LABELS.items()]
    return write(folder / "labels.csv", "image,cat,cow,dog", *rows)


def classes_csv_of_splits(folder: Path) -> Path:
    for split, names in (("train", "abcd"), ("valid", "e"), ("test", "f")):
        pictures(folder / split, names)
        rows = [f"{n}.jpg, {', '.join(str(int(c in LABELS[n])) for c in CLASSES)}" for n in names]
        write(folder / split / "_classes.csv", "filename, cat, cow, dog", *rows)
    return folder


def tags(folder: Path) -> Path:
    pictures(folder / "train-jpg")
    rows = [f"{name},{' '.join(labels)}" for name, labels in LABELS.items()]
    return write(folder / "train.csv", "image_name,tags", *rows)


def is_valid(folder: Path) -> Path:
    pictures(folder / "train")
    rows = [f"{name}.jpg,{' '.join(labels)},{name in 'ef'}" for name, labels in LABELS.items()]
    return write(folder / "train.csv", "fname,labels,is_valid", *rows)


def pipes(folder: Path) -> Path:
    pictures(folder / "images_001" / "images", "abc", ".png")
    pictures(folder / "images_002" / "images", "def", ".png")
    rows = [f"{n}.png,{'|'.join(of) or 'No Finding'},0,{ord(n) // 2},58,M" for n, of in LABELS.items()]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    return write(folder / "Data_Entry.csv", header, *rows)


def chexpert(folder: Path) -> Path:
    base = folder / "CheXpert"
    pictures(base / "train" / "p1")
    classes = "Enlarged Cardiomediastinum,Lung Opacity,Pleural Effusion"
    states = {"a": "1.0,0.0,-1.0", "b": ",1.0,0.0", "c": "0.0,,1.0", "d": "1.0,-1.0,", "e": "0.0,0.0,0.0"}
    rows = [f"CheXpert/train/p1/{n}.jpg,Female,68,Frontal,{state}" for n, state in states.items()]
    return write(base / "train.csv", f"Path,Sex,Age,Frontal/Lateral,{classes}", *rows)


def celeba(folder: Path) -> Path:
    pictures(folder / "img_align_celeba")
    rows = [f"{n}.jpg {' '.join(' 1' if c in of else '-1' for c in CLASSES)}" for n, of in LABELS.items()]
    write(folder / "list_eval_partition.txt", *(f"{n}.jpg {max(0, ord(n) - ord('d'))}" for n in LABELS))
    return write(folder / "list_attr_celeba.txt", "6", "cat cow dog", *rows)


def json_lines(folder: Path) -> Path:
    pictures(folder)
    rows = [json.dumps({"file_name": f"{n}.jpg", "labels": of}) for n, of in LABELS.items()]
    return write(folder / "metadata.jsonl", *rows)


def json_lines_of_splits(folder: Path) -> Path:
    for split, names in (("train", "abcd"), ("validation", "e"), ("test", "f")):
        pictures(folder / split, names)
        rows = [json.dumps({"file_name": f"{n}.jpg", "labels": LABELS[n]}) for n in names]
        write(folder / split / "metadata.jsonl", *rows)
    return folder


def long_form(folder: Path) -> Path:
    """Of a nothing but cat is known, of b both, and so on: what is absent is said of cat alone."""
    pictures(folder / "validation", "abcd")
    ids = {"cat": "/m/01yrx", "cow": "/m/01xq0k1", "dog": "/m/0bt9lr"}
    write(folder / "class-descriptions.csv", *(f"{id},{name}" for name, id in ids.items()))
    rows = [f"{n},verification,{ids[c]},1" for n in "abd" for c in LABELS[n]]
    rows += [f"c,verification,{ids['dog']},1", f"c,verification,{ids['cat']},0"]
    return write(folder / "labels.csv", "ImageID,Source,LabelName,Confidence", *rows)


def coco_of(names: str, ids: type = int, sizes: bool = False) -> dict[str, Any]:
    number = {name: place for place, name in enumerate(CLASSES, start=1)}
    size = {"width": 40, "height": 20} if sizes else {}
    objects = [(n, c) for n in names for c in LABELS[n]]
    return {
        "images": [{"id": ids(ord(n)), "file_name": f"{n}.jpg", **size} for n in names],
        "categories": [{"id": number[c], "name": c} for c in CLASSES],
        "annotations": [
            {"id": i, "image_id": ids(ord(n)), "category_id": number[c], "bbox": [10, 5, 20, 10]}
            for i, (n, c) in enumerate(objects)
        ],
    }


def roboflow(folder: Path) -> Path:
    for split, names in (("train", "abcd"), ("valid", "e"), ("test", "f")):
        pictures(folder / split, names)
        write(folder / split / "_annotations.coco.json", json.dumps(coco_of(names)))
    return folder


def coco_ids_as_text(folder: Path) -> Path:
    pictures(folder)
    return write(folder / "result.json", json.dumps(coco_of("abcdef", ids=str)))


def voc_xml(name: str, objects: list[str], more: str = "") -> str:
    box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>"
    shapes = "".join(f"<object><name>{name}</name>{more or box}</object>" for name in objects)
    size = "<size><width>40</width><height>20</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{shapes}</annotation>"


def voc(folder: Path) -> Path:
    base = folder / "VOCdevkit" / "VOC2007"
    pictures(base / "JPEGImages")
    for name, labels in LABELS.items():
        write(base / "Annotations" / f"{name}.xml", voc_xml(name, labels))
    for split, names in (("train", "abcd"), ("val", "e"), ("test", "f")):
        write(base / "ImageSets" / "Main" / f"{split}.txt", *names)
    return folder / "VOCdevkit"


def voc_polygons_beside_pictures(folder: Path) -> Path:
    pictures(folder)
    outline = "<polygon><x1>1</x1><y1>1</y1></polygon>"
    for name, labels in LABELS.items():
        write(folder / f"{name}.xml", voc_xml(name, labels, outline))
    return folder


def yolo(folder: Path) -> Path:
    for split, names in (("train", "abcd"), ("val", "e"), ("test", "f")):
        pictures(folder / "images" / split, names)
        for n in names[:-1] if split == "val" else names:  # e has no file at all
            lines = [f"{CLASSES.index(c)} 0.5 0.5 0.5 0.5" for c in LABELS[n]] * 2
            write(folder / "labels" / split / f"{n}.txt", *lines)
    names_of = "names: [cat, cow, dog]"
    write(folder / "data.yaml", "train: ../images/train", "val: images/val", "test: images/test", names_of)
    return folder


def label_studio(folder: Path) -> Path:
    pictures(folder / "imgs")
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/local-files/?d=some/where/{name}.jpg"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": labels}}] if labels else []}
            ],
        }
        for number, (name, labels) in enumerate(LABELS.items())
    ]
    return write(folder / "export.json", json.dumps(tasks))


def label_studio_csv(folder: Path) -> Path:
    pictures(folder)
    rows = []
    for number, (name, labels) in enumerate(LABELS.items()):
        cell = json.dumps({"choices": labels}).replace('"', '""') if len(labels) > 1 else "".join(labels)
        rows.append(f'{number},/data/upload/1/0a1b2c3d-{name}.jpg,"{cell}"')
    return write(folder / "export.csv", "id,image,choices", *rows)


def cvat(folder: Path) -> Path:
    pictures(folder / "images")
    names = "".join(f"<label><name>{c}</name></label>" for c in CLASSES)
    images = "".join(
        f'<image id="{number}" name="{name}.jpg" width="40" height="20">'
        + "".join(f'<tag label="{c}" source="manual"></tag>' for c in labels)
        + "</image>"
        for number, (name, labels) in enumerate(LABELS.items())
    )
    meta = f"<meta><job><labels>{names}</labels></job></meta>"
    return write(
        folder / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{images}</annotations>',
    )


def class_folders(folder: Path) -> Path:
    """No picture without a label can be there: a to d. d lies in cow under another name."""
    for name, labels in LABELS.items():
        for label in labels:
            (folder / label).mkdir(parents=True, exist_ok=True)
            other = "d_copy" if (name, label) == ("d", "cow") else name
            (folder / label / f"{other}.jpg").write_bytes(jpeg(ord(name)))
    return folder


def parquet(folder: Path, numbers: bool = True) -> Path:
    import pyarrow
    import pyarrow.parquet

    names = list(LABELS)
    labels = [[CLASSES.index(c) if numbers else c for c in LABELS[n]] for n in names]
    images = [{"bytes": jpeg(ord(n)), "path": f"{n}.jpg"} for n in names]
    kind = pyarrow.list_(pyarrow.int64() if numbers else pyarrow.string())
    table = pyarrow.table({"image": images, "labels": pyarrow.array(labels, kind)})
    feature = {"feature": {"names": list(CLASSES), "_type": "ClassLabel"}, "_type": "Sequence"}
    hub = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "labels": feature}}})
    (folder / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"huggingface": hub} if numbers else None),
        folder / "data" / "train-00000-of-00001.parquet",
    )
    return folder


def parquet_of_names(folder: Path) -> Path:
    return parquet(folder, numbers=False)


# fmt: off
SHAPES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "one-hot": (one_hot, "file = filename, a column per class (cat to dog); 3 classes; 6 pictures"),
    "True, False": (one_hot_in_words, "file = filename, a column per class (cat to dog); 3 classes; 6 pictures"),
    "yes, no": (one_hot_yes_no, "file = image, a column per class (cat to dog); 3 classes; 6 pictures"),
    "_classes.csv": (classes_csv_of_splits, "a column per class (cat to dog); 3 classes; 6 pictures"),
    "tags": (tags, "file = image_name + .jpg in train-jpg/, labels = tags by blanks; 3 classes; 6 pictures"),
    "is_valid": (is_valid, "file = fname in train/, labels = labels by blanks, split = is_valid; 3 classes;"
                           " 6 pictures"),
    "pipes": (pipes, "file = Image Index in images_001/images/, images_002/images/, labels = Finding Labels by `|`,"
                     " `No Finding` says none of the classes; 3 classes; 6 pictures"),
    "CelebA": (celeba, "CelebA's text: file = first word in img_align_celeba/, -1 = absent,"
                       " split = list_eval_partition.txt; 3 classes; 6 pictures"),
    "JSON lines": (json_lines, "an object a line: file = file_name, labels = labels; 3 classes; 6 pictures"),
    "JSON lines of splits": (json_lines_of_splits, "an object a line: file = file_name, labels = labels; 3 classes;"
                                                   " 6 pictures"),
    "Roboflow": (roboflow, "COCO's lists: file = file_name, labels = category_id of the annotations; 3 classes;"
                           " 6 pictures"),
    "COCO, ids as text": (coco_ids_as_text, "COCO's lists: file = file_name, labels = category_id of the annotations;"
                                            " 3 classes; 6 pictures"),
    "VOC": (voc, "VOC's XML in Annotations/, labels = names of the objects, splits = ImageSets/Main; 3 classes;"
                 " 6 pictures"),
    "VOC, polygons": (voc_polygons_beside_pictures, "labels = names of the objects; 3 classes; 6 pictures"),
    "YOLO": (yolo, "YOLO's text files, labels = first number of each line, splits = folders of the YAML; 3 classes;"
                   " 6 pictures"),
    "Label Studio": (label_studio, "Label Studio's tasks: file = image without its first 2 folders in imgs/,"
                                   " labels = choices; 3 classes; 6 pictures"),
    "Label Studio's CSV": (label_studio_csv, "labels = choices by `;`; 3 classes; 6 pictures"),
    "CVAT": (cvat, "CVAT's images: file = name in images/, labels = tags and shapes; 3 classes; 6 pictures"),
    "Parquet": (parquet, "Parquet: pictures = image, labels = labels; 3 classes; 6 pictures"),
    "Parquet, names": (parquet_of_names, "Parquet: pictures = image, labels = labels; 3 classes; 6 pictures"),
}
# fmt: on
