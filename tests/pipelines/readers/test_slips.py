"""Slips that people make in their tables: what is said of each, and that it names the option or the line to mend."""

import json
import time
import zipfile

import label_shapes
import pytest
from label_shapes import write

from pipelines.readers.table import read_table


def table(*lines, name="labels.csv"):
    def make(folder):
        label_shapes.pictures(folder)
        return write(folder / name, *lines)

    return make


def raw_bytes(content, name="labels.csv"):
    def make(folder):
        label_shapes.pictures(folder)
        (folder / name).write_bytes(content)
        return folder / name

    return make


def zips(folder):
    with zipfile.ZipFile(folder / "part1.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    return folder


def nothing(folder):
    return folder


def two_yamls(folder):
    label_shapes.yolo(folder)
    write(folder / "other.yaml", "names: [cat]")
    return folder


def yolo_of_another_class(folder):
    label_shapes.yolo(folder)
    write(folder / "labels" / "train" / "b.txt", "7 0.5 0.5 0.5 0.5")
    return folder


def yolo_without_names(folder):
    return write(folder / "data.yaml", "train: images/train")


def yolo_without_yaml(folder):
    label_shapes.yolo(folder)
    (folder / "data.yaml").unlink()
    return folder


def pictures_alone(folder):
    label_shapes.pictures(folder)
    return folder


def voc_without_a_picture(folder):
    label_shapes.voc(folder)
    (folder / "VOCdevkit" / "VOC2007" / "JPEGImages" / "b.jpg").unlink()
    return folder / "VOCdevkit"


def cut_off(make, name):
    def made(folder):
        source = make(folder)
        path = source if source.is_file() else next(source.rglob(name))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return source

    return made


def voc_list_in_latin_1(folder):
    label_shapes.voc(folder)
    (folder / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "val.txt").write_bytes(
        "käfer\n".encode("latin-1")
    )
    return folder / "VOCdevkit"


def celeba_shuffled(folder):
    path = label_shapes.celeba(folder)
    lines = (folder / "list_eval_partition.txt").read_text().split("\n")
    write(folder / "list_eval_partition.txt", lines[1], lines[0], *lines[2:])
    return path


def split_without_a_table(folder):
    label_shapes.roboflow(folder)
    (folder / "valid" / "_annotations.coco.json").unlink()
    return folder


TWO_LABELS = '{"file_name": "a.jpg", "labels": ["cat"], "labels": ["dog"]}'
BASIC = ["image,labels", "a.jpg,cat", "b.jpg,dog", "c.jpg,cat", "d.jpg,dog"]
# fmt: off
REFUSED = {
    "two separators": (table("image,labels", "a.jpg,cat|dog", "b.jpg,cat;cow"),
                       "labels are separated by `|` in some rows, as in `cat|dog`, and by `;` in others."),
    "one comma among many": (table("image,labels", *(f"{n}.jpg,cat" for n in "abcde"), 'f.jpg,"cat, dog"'),
                             "`,` stands in 1 of 6 cells of labels, as in `cat, dog`: does it separate labels?"
                             " --separator ','"),
    "blanks in few rows": (table("image,labels", "a.jpg,cat", "b.jpg,traffic light", "c.jpg,dog"),
                           "a space stands in 1 of 3 cells of labels, as in `traffic light`: does it separate labels?"
                           " --separator ' '"),
    "columns in German": (table("Bild,Inhalt", "a,cat", "b,dog"),
                          "has no column `file`. It has Bild, Inhalt. Did you mean `Bild`? --file-column names the"
                          " column of the pictures."
                          " Its first rows: a | cat / b | dog"),
    "labels in German": (table("Bild,Inhalt", "a.jpg,cat", "b.jpg,dog"),
                         "has no column whose name says labels, and none of 0 and 1 for a class: --labels-column says"
                         " which holds the labels. It has Bild, Inhalt. Its first rows: a.jpg | cat / b.jpg | dog"),
    "label and labels": (table("image,label,labels", "a.jpg,cat,cat"), "has `label` and `labels`: --labels-column"),
    "tags beside labels": (table("file,labels,tags", "a.jpg,cat,x"), "has both `labels` and `tags`: --labels-column"),
    "two columns of files": (table("one,two,label", "a.jpg,b.jpg,cat"),
                             "has several columns of files, one, two: --file-column"),
    "no labels at all": (table("image,width", "a.jpg,640"), "--labels-column says which holds the labels"),
    "-1 without 0": (table("image,cat,dog", "a.jpg,1,-1", "b.jpg,-1,1"), "--minus-one absent, unknown or difficult"),
    "a typo in a class's column": (table("image,cat,dog", "a.jpg,1,0", "b.jpg,1,2", "c.jpg,0,1"),
                                   "line 3, column `dog`: expected 1, 0, -1 or nothing. Received: '2'"),
    "none beside a label": (table("image,labels", "a.jpg,cat|leer", "b.jpg,leer"),
                            "line 2: `leer`, which says none of the classes, stands beside others"),
    "a label twice in two cases": (table("image,labels", "a.jpg,cat|dog", "b.jpg,Cat|dog"),
                                   "the classes `Cat` and `cat` differ by case"),
    "a missing picture": (table(*BASIC, "zz.jpg,cat"),
                          "(Read as: file = image, labels = labels by `;`; first rows: a.jpg: cat | b.jpg: dog |"
                          " c.jpg: cat. Other readings: --file-column,"
                          " --labels-column, --separator, --extension, --images.)"),
    "files of another folder": (table("image,labels", "x1,cat", "x2,dog"), "x1 is not there"),
    "a comma too many": (table(*BASIC, "e.jpg,cat,dog"), "line 6: 3 fields, but 2 in the header"),
    "one picture twice": (table(*BASIC, "a.jpg,dog"), "line 6: a.jpg was there already, in {folder}/labels.csv, line"
                                                      " 2. One row a picture"),
    "Latin-1": (raw_bytes("image,labels\na.jpg,käfer\n".encode("latin-1")),
                "is not UTF-8 text, first in line 2, 'a.jpg,käfer'"),
    "an empty file": (raw_bytes(b""), "labels.csv is empty."),
    "two columns of one name": (table("image,labels,labels", "a.jpg,cat,cat"),
                                "has two columns `labels`. Rename or remove one of them."),
    "columns swapped": (table("file,labels", "cat,a.jpg", "dog,b.jpg"),
                        "line 2: {folder}/cat is not there. Its label `a.jpg` looks like a picture: are the columns"
                        " swapped?"),
    "files that were joined": (table(*BASIC, "image,labels", "e.jpg,cat"),
                               "line 6: the header stands here again, as where files were joined. Remove it."),
    "a quotation mark too many": (table("image,labels", "a.jpg,cat", 'b.jpg,"dog', "c.jpg,cat"),
                                  "line 3: a quotation mark is opened and not closed in this line"),
    "no header": (table("a.jpg,cat", "b.jpg,dog"),
                  "Its first line looks like a row: where there are no names of columns, put `file,labels` above"),
    "a header alone": (table("image,labels"), "there is not one picture in it"),
    "a picture named .csv": (raw_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99)), "labels.csv"),
    "a table in Excel's own form": (raw_bytes(b"PK\3\4", "labels.xlsx"),
                                    "labels.xlsx: Save it as CSV: a table must be one of .csv"),
    "a zip": (raw_bytes(b"PK\3\4", "set.zip"), "set.zip: Unpack it first: a table must be one of .csv"),
    "pictures alone": (pictures_alone, "There are pictures in it, and nothing says what they show."),
    "YOLO without its YAML": (yolo_without_yaml, "It looks like YOLO's, but for data.yaml: write one with `names:"),
    "JSON of another shape": (table('{"a.jpg": ["cat"], "b.jpg": ["dog"]}', name="labels.json"),
                              "is in none of the forms of JSON that we know: COCO's lists (images, annotations,"
                              " categories), Label Studio's tasks, or a list of objects such as {{\"file_name\":"
                              " \"a.jpg\", \"labels\": [\"cat\", \"dog\"]}}. It has the keys a.jpg, b.jpg."),
    "JSON of pairs": (table('[["a.jpg", ["cat"]]]', name="labels.json"),
                      "expected a list of objects, such as {{\"file_name\": \"a.jpg\", \"labels\":"),
    "a folder of zips": (zips, "Unpack part1.zip first"),
    "an empty folder": (nothing, "holds no CSV and no JSON, nor labels in another form"),
    "a split without its table": (split_without_a_table, "valid has not one table, as {folder}/test has"),
    "an option for no column": (table(*BASIC), "has no column `tag`, which --labels-column names. It has image,"
                                               " labels."),
    "JSON lines cut off": (cut_off(label_shapes.json_lines, "metadata.jsonl"), "metadata.jsonl, line 3: no JSON"),
    "JSON lines with two labels": (table(TWO_LABELS, name="m.jsonl"),
                                   "m.jsonl, line 1: no JSON: it holds `labels` twice"),
    "a JSON with two labels": (table(f"[{TWO_LABELS}]", name="m.json"),
                               "m.json is not a JSON file: it holds `labels` twice"),
    "CVAT's XML cut off": (cut_off(label_shapes.cvat, "annotations.xml"), "annotations.xml is not XML"),
    "Parquet cut off": (cut_off(label_shapes.parquet, "*.parquet"), "is not a Parquet file"),
    "JSON lines without labels": (table('{"file_name": "a.jpg", "what": ["cat"]}', name="m.jsonl"),
                                  "names the labels by none of the usual keys: --labels-column says by which. It has"
                                  " file_name, what"),
    "two YAML files": (two_yamls, "holds data.yaml, other.yaml: name the one to read"),
    "a number of no class": (yolo_of_another_class, "b.txt, line 1: expected the number of one of 3 classes."
                                                    " Received: '7 0.5 0.5 0.5 0.5'"),
    "a YAML without names": (yolo_without_names, "data.yaml is not YOLO's: it has no `names` of classes"),
    "an XML without its picture": (voc_without_a_picture, "b.xml: no picture b.jpg (or of another ending) in"),
    "a list of VOC's in Latin-1": (voc_list_in_latin_1, "val.txt is damaged: it is not UTF-8"),
    "CelebA's split in another order": (celeba_shuffled, "list_eval_partition.txt, line 1: expected a.jpg and 0, 1"
                                                         " or 2, in the order of list_attr_celeba.txt"),
}
OPTIONS = {"none beside a label": {"none_label": "leer"}, "an option for no column": {"labels_column": "tag"}}
# fmt: on


@pytest.mark.parametrize("slip", REFUSED)
def test_a_slip_is_refused_with_what_mends_it(tmp_path, slip):
    make, said = REFUSED[slip]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_table(make(tmp_path), val_fraction=0, test_fraction=0, **OPTIONS.get(slip, {}))
    assert said.format(folder=tmp_path) in str(error.value)


def coco_of_texts(folder):
    label_shapes.pictures(folder)
    content = {
        "images": [{"id": "7", "file_name": "a.jpg"}, {"id": "8", "file_name": "b.jpg"}],
        "categories": [{"id": "10", "name": "dog"}, {"id": "9", "name": "cat"}],
        "annotations": [
            {"image_id": image, "category_id": category}
            for image, category in (("7", "9"), ("7", "10"), ("8", "10"))
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


SEMICOLONS = ["image;labels", "a.jpg;cat|dog", "b.jpg;dog", "c.jpg;cat"]
# fmt: off
READ = {
    "Excel's semicolons": (table(*SEMICOLONS), "columns are separated by `;`"),
    "Excel's UTF-16": (raw_bytes("image\tlabels\r\na.jpg\tcat|dog\r\nb.jpg\tdog\r\n".encode("utf-16")),
                       "the text is UTF-16"),
    "blanks after commas": (table("image, labels", "a.jpg, cat|dog", "b.jpg, dog"), None),
    "a header with a comma at its end": (table("image,labels,", "a.jpg,cat|dog", "b.jpg,dog"),
                                         "the header has one empty field more than the rows"),
    "a comma at the end of each row": (table("image,labels", "a.jpg,cat|dog,", "b.jpg,dog,"),
                                       "some rows have one empty field more than the header"),
    "a split misspelt": (table("image,labels,split", "a.jpg,cat|dog,train", "b.jpg,dog,tain"),
                         "suspicious: the split `tain` is read as one of its own. Did you mean `train`?"),
    "a list as JSON writes it": (table("image,labels", 'a.jpg,"[""cat"", ""dog""]"', 'b.jpg,"[""dog""]"'),
                                 "lists in labels, as in [\"cat\", \"dog\"], are read as lists"),
    "a list of objects": (table('[{"file_name": "a.jpg", "labels": ["cat", "dog"]},',
                                '{"file_name": "b.jpg", "labels": ["dog"]}]', name="labels.json"), None),
    "COCO's ids as texts": (coco_of_texts, None),
    "columns nobody needs": (table("id,image,labels,width", "1,a.jpg,cat|dog,640", "2,b.jpg,dog,480"),
                             "columns that are not read: id, width"),
    "pandas' number of the row": (table(",image,labels", "0,a.jpg,cat|dog", "1,b.jpg,dog"), None),
    "a split in capitals": (table("image,labels,split", "a.jpg,cat|dog,train", "b.jpg,dog,valid"),
                            "the split valid is read as validation"),
    "a list as Python writes it": (table("image,labels", "a.jpg,\"['cat', 'dog']\"", "b.jpg,\"['dog']\""), None),
}
# fmt: on


@pytest.mark.parametrize("slip", READ)
def test_a_slip_that_can_only_mean_one_thing_is_read_and_said(tmp_path, slip):
    make, said = READ[slip]
    raw = read_table(make(tmp_path), val_fraction=0, test_fraction=0)
    assert raw.classes == ("cat", "dog")
    first = next(sample for iterate in raw.splits.values() for sample in iterate() if sample.id == "a.jpg")
    assert first.present == (0, 1)
    assert said is None or said in raw.remarks


def test_labels_that_are_numbers_become_names(tmp_path):
    raw = read_table(table("image,label", "a.jpg,3", "b.jpg,12")(tmp_path), val_fraction=0, test_fraction=0)
    assert raw.classes == ("12", "3")
    assert "the labels in label are numbers, which become the names of the classes" in raw.remarks


def test_pictures_beside_the_folders_of_classes_are_counted(tmp_path):
    for folder in ("cat", "dog", ""):
        label_shapes.pictures(tmp_path / folder, {"cat": "ab", "dog": "cd", "": "efg"}[folder])
    (remark,) = read_table(tmp_path, val_fraction=0, test_fraction=0).remarks
    assert remark == f"pictures beside the folders of classes, which are not read: 3 in {tmp_path.name}/"


def test_hostile_tables_end_within_bounds(tmp_path):
    label_shapes.pictures(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    hostile = {
        "deep.json": "[" * 200_000,
        "deep.jsonl": '{"file_name": ' + "[" * 200_000,
        "long.csv": "image,labels\na.jpg," + "x" * 3_000_000,
        "bomb.xml": f"{bomb}]><annotations><image name='a.jpg'><tag label='&j;'/></image></annotations>",
        "deep.xml": "<annotations>" + "<a>" * 100_000,
        "bomb.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]",
    }
    for name, text in hostile.items():
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ValueError, match=name):
            read_table(path)


@pytest.mark.parametrize(("more", "message"), [("", "wide.csv"), (",c7", "has two columns `c7`")])
def test_a_table_of_thirty_thousand_columns_ends_within_seconds(tmp_path, more, message):
    path = tmp_path / "wide.csv"
    path.write_text("file," + ",".join(f"c{i}" for i in range(30_000)) + more + "\n")
    started = time.process_time()
    with pytest.raises(ValueError, match=message):
        read_table(path)
    assert time.process_time() - started < 4
