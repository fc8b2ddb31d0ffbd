"""Read the rows of XML: CVAT's, all pictures in one file, or Pascal VOC's with any classes, a file per picture."""

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from pipelines.files import naming
from pipelines.readers.rows import PICTURE_ENDINGS, Box, Row, Table, Told, clean
from pipelines.readers.voc import box_of, read_xml
from pipelines.reading import read_text

DEVKIT_LISTS = {
    "train": "train",
    "validation": "val",
    "test": "test",
}  # split -> its list in `ImageSets/Main`


class Cvat(Table):
    """CVAT's `for images` XML, read anew at every iteration: the tags of each image, and the labels of its shapes."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder)
        self.uses |= {"extension"}
        names = []
        subsets = False
        for element in self._elements():
            if element.tag == "label" and element.find("name") is not None:
                names.append(clean(element.findtext("name", "")))
            elif element.tag == "image":
                subsets = bool(element.get("subset"))
                break
        self.declared = tuple(dict.fromkeys(names)) or None
        self.names_splits = subsets
        self.read_as = ["CVAT's images: file = name", "labels = tags and shapes"]
        if self.names_splits:
            self.read_as.append("split = subset")

    def rows(self) -> Iterator[Row]:
        for number, image in enumerate(e for e in self._elements() if e.tag == "image"):
            subset = image.get("subset", "")
            if bool(subset) != self.names_splits:
                raise ValueError(
                    f"{self.path}, image {number}: some images have a `subset` and others none. Give all of them one,"
                    " or none."
                )
            split = subset or self.split
            names, boxes, box_labels = [], list[Box](), []
            width, height = (_positive(image.get(side)) for side in ("width", "height"))
            for element in image:
                name = clean(element.get("label", ""))
                if not name:
                    continue
                names.append(name)
                if element.tag == "box" and width and height:
                    sides = [_positive(element.get(side)) for side in ("ytl", "xtl", "ybr", "xbr")]
                    box = (
                        sides[0] / height,
                        sides[1] / width,
                        min(1.0, sides[2] / height),
                        min(1.0, sides[3] / width),
                    )
                    if box[0] < box[2] and box[1] < box[3]:
                        boxes.append(box)
                        box_labels.append(name)
            yield Row(
                *(self.path, f"image {number}", image.get("name", ""), tuple(dict.fromkeys(names))),
                split=split,
                boxes=tuple(boxes),
                box_labels=tuple(box_labels),
                measured=(round(height), round(width)) if width and height else None,
            )

    def _elements(self) -> Iterator[ElementTree.Element]:
        """Each `image` and `label` of the file once it is complete; images are then removed from memory."""
        with self.path.open("rb") as file, naming(self.path):
            try:
                parents: list[ElementTree.Element] = []
                for event, element in ElementTree.iterparse(file, ("start", "end")):
                    if event == "start":
                        parents.append(element)
                        if len(parents) > 100:
                            raise ValueError(f"{self.path} is nested too deeply.")
                        continue
                    parents.pop()
                    if element.tag in ("image", "label"):
                        yield element
                    if element.tag == "image" and parents:
                        parents[-1].remove(element)
            except ElementTree.ParseError as error:
                raise ValueError(f"{self.path} is not XML: {error}") from None


class Voc(Table):
    """A folder of Pascal VOC's XML files, with or without `ImageSets/Main`; the files name the classes."""

    def __init__(self, path: Path, split: str | None, told: Told, folder: Path | None = None) -> None:
        super().__init__(path, split, told, folder or path)
        self._annotations = find_annotations(path) or path
        main = path / "ImageSets" / "Main"
        lists = {split: main / f"{name}.txt" for split, name in DEVKIT_LISTS.items()}
        self._lists = {split: file for split, file in lists.items() if file.is_file()}
        if not self._lists and (main / "trainval.txt").is_file():
            self._lists = {"train": main / "trainval.txt"}
        self.names_splits = bool(self._lists) and split is None
        self.exact = True
        self._folders = [f for name in ("JPEGImages", "images", "Images", "") if (f := path / name).is_dir()]
        self.read_as = [f"VOC's XML in {self._annotations.name}/", "labels = names of the objects"]
        if self.names_splits:
            self.read_as.append("splits = ImageSets/Main")

    def rows(self) -> Iterator[Row]:
        if self.names_splits:
            for split, file in self._lists.items():
                lines = read_text(file).removeprefix("\ufeff").splitlines()
                stems = [line.split()[0] for line in lines if line.split()]
                for stem in stems:
                    if "/" in stem or "\\" in stem:
                        raise ValueError(f"{file}: {stem!r:.60} is not the name of a picture.")
                    yield self._row(self._annotations / f"{stem}.xml", split)
            return
        with os.scandir(self._annotations) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(".xml") and not entry.name.startswith(".")
            )
        for name in names:
            yield self._row(self._annotations / name, self.split)

    def _row(self, file: Path, split: str | None) -> Row:
        tree = read_xml(file)
        states: dict[str, bool] = {}  # class -> whether all its objects are difficult
        boxes, box_labels = list[Box](), []
        width, height = (_positive(tree.findtext(f"size/{side}", default="")) for side in ("width", "height"))
        for entry in tree.iter("object"):
            name = clean(entry.findtext("name", default=""))
            if not name:
                raise ValueError(f"{file}: an object without a name.")
            states[name] = states.get(name, True) and entry.findtext("difficult", "0").strip() == "1"
            box = box_of(file, entry, width, height) if width and height else None
            if box is not None:
                boxes.append(box)
                box_labels.append(name)
        return Row(
            *(file, "object", self._picture(file, tree), tuple(states)),
            difficult=tuple(name for name, difficult in states.items() if difficult),
            split=split,
            boxes=tuple(boxes),
            box_labels=tuple(box_labels),
            measured=(round(height), round(width)) if width and height else None,
        )

    def _picture(self, file: Path, tree: ElementTree.Element) -> str:
        """An XML file's picture, relative to the folder: the one of the same stem, or else the one it names."""
        named = Path(tree.findtext("filename", default="").strip().replace("\\", "/")).name
        endings = [*PICTURE_ENDINGS, *(ending.upper() for ending in PICTURE_ENDINGS)]
        for folder in self._folders:
            for name in (*(file.stem + ending for ending in endings), named):
                if name and (folder / name).is_file():
                    return str((folder / name).relative_to(self.folder))
        raise FileNotFoundError(
            f"{file}: no picture {file.stem}.jpg (or of another ending) in {self._folders[0]}."
        )


def find_annotations(folder: Path) -> Path | None:
    """The folder of the XML files in a folder like VOC's; None if there is none."""
    for name in ("Annotations", "annotations", "annotations/xmls"):
        if next((folder / name).glob("*.xml"), None):
            return folder / name
    return folder / "Annotations" if (folder / "Annotations").is_dir() else None


def is_cvat(path: Path) -> bool:
    """Whether an XML file holds CVAT's annotations."""
    with path.open("rb") as file, naming(path):
        return b"<annotations>" in file.read(4096)


def _positive(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return 0.0
    return value if 0 < value < 1e9 else 0.0
