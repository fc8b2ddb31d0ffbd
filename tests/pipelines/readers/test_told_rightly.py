"""What would give a picture wrong labels in silence: it is read rightly, or refused with what to do."""

import json
import re

import label_shapes
import pyarrow
import pyarrow.parquet
import pytest
from label_shapes import write
from miniature import jpeg
from PIL import Image

from pipelines.pictures import known_formats
from pipelines.readers.table import read_table

WHOLE = {"val_fraction": 0, "test_fraction": 0}


def present_of(raw):
    """Picture's id -> the names of its labels."""
    return {
        sample.id: [raw.classes[label] for label in sample.present]
        for iterate in raw.splits.values()
        for sample in iterate()
    }


def json_lines(path, *objects):
    return write(path, *(json.dumps(content) for content in objects))


def parquet(path, names=None, **columns):
    table = pyarrow.table(columns)
    feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
    hub = json.dumps({"info": {"features": {"labels": feature}}})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": hub} if names else None), path)
    return path


# --- Labels given as numbers


def test_numbers_count_the_names_of_the_file_whatever_the_order_of_classes(tmp_path):
    path = parquet(tmp_path / "t.parquet", ["cat", "dog"], file=["a.jpg", "b.jpg"], labels=[[0], [1]])
    raw = read_table(path, classes=["dog", "cat"], check_files=False, **WHOLE)
    assert raw.classes == ("dog", "cat")
    assert present_of(raw) == {"a.jpg": ["cat"], "b.jpg": ["dog"]}


def test_a_0_or_1_for_each_class_is_no_list_of_numbers(tmp_path):
    path = json_lines(tmp_path / "m.jsonl", {"file_name": "a.jpg", "labels": [0, 1, 0]})
    with pytest.raises(ValueError, match=r"line 1: `labels` looks like a 0 or 1 for each class"):
        read_table(path, classes=["cat", "cow", "dog"], check_files=False)
    path = parquet(tmp_path / "t.parquet", ["cat", "cow", "dog"], file=["a.jpg"], labels=[[0, 1, 0]])
    with pytest.raises(ValueError, match=r"row 0: `labels` looks like a 0 or 1 for each class"):
        read_table(path, check_files=False)


# --- Folders as classes


def folders(root, **pictures):
    """`cat__a=1` -> `cat/a.jpg`, the picture of number 1; `__` is a slash."""
    for place, number in pictures.items():
        path = root / f"{place.replace('__', '/')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return root


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (
            {"Lernen__cat__a": 1, "Lernen__dog__b": 2, "Pruefen__cat__c": 3, "Pruefen__dog__d": 4},
            "not read as classes (Lernen, Pruefen): no picture lies in one of them, only in folders below",
        ),
        ({"train__a": 1, "val__b": 2, "holdout__c": 3}, "`train` is the name of a split"),
        ({"train__train__a": 1, "train__cat__b": 2, "test__cat__c": 3}, "`train` is the name of a split"),
        ({"images__a": 1, "images__b": 2}, "not read as classes (images): that is only one"),
        ({"train__cat__a": 1, "test__cat__b": 2}, "not read as classes (cat): that is only one"),
    ],
)
def test_folders_that_are_probably_no_classes_are_refused(tmp_path, pictures, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(folders(tmp_path, **pictures), **WHOLE)


def test_a_class_may_be_named_like_a_split_if_it_is_listed(tmp_path):
    raw = read_table(folders(tmp_path, train__a=1, bus__b=2), classes=["train", "bus"], **WHOLE)
    assert present_of(raw) == {"train/a.jpg": ["train"], "bus/b.jpg": ["bus"]}


def test_copies_of_copies_are_one_picture(tmp_path):
    # cat/1 and cow/2 have the same bytes, cow/2 and dog/2 the same name, dog/2 and emu/3 the same bytes.
    source = folders(tmp_path, cat__1=7, cow__2=7, dog__2=8, emu__3=8, emu__4=9)
    raw = read_table(source, same_name="one", **WHOLE)
    assert present_of(raw) == {"cat/1.jpg": ["cat", "cow", "dog", "emu"], "emu/4.jpg": ["emu"]}


# --- Splits, groups, and labels that are missing


def test_a_picture_in_two_lists_of_voc_is_refused(tmp_path):
    source = label_shapes.voc(tmp_path)
    write(source / "VOC2007" / "ImageSets" / "Main" / "test.txt", "f", "a")
    with pytest.raises(ValueError, match=r"a.jpg was there already, .* \(splits train and test\)"):
        read_table(source)


def test_a_picture_in_two_folders_of_yolo_is_refused(tmp_path):
    source = label_shapes.yolo(tmp_path)
    write(source / "data.yaml", "train: images/train", "val: images/train", "names: [cat, cow, dog]")
    with pytest.raises(ValueError, match=r"a.jpg was there already, .* \(splits train and validation\)"):
        read_table(source)


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({"labels": []}, {}, "line 2: `split` must be a name of letters, digits and _. Received: ''"),
        ({"labels": [], "split": "../../esc"}, {}, "line 2: `split` must be a name"),
        ({"split": "train"}, {}, "line 2: `labels` says nothing"),
        ({"labels": None, "split": "train"}, {}, "line 2: `labels` says nothing"),
        (
            {"labels": [], "split": "train"},
            {"group_column": "patient"},
            "line 2: the cell of its group is blank",
        ),
        (
            {"labels": ["none", "cat"], "split": "train"},
            {"none_label": "none"},
            "line 2: `none`, which says none of the classes, stands beside others: none, cat",
        ),
    ],
)
def test_what_a_line_of_json_leaves_out_is_refused(tmp_path, more, options, message):
    whole = {"file_name": "a.jpg", "labels": ["cat"], "split": "train", "patient": 7}
    path = json_lines(tmp_path / "m.jsonl", whole, {"file_name": "b.jpg", **more})
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(path, check_files=False, **options)


@pytest.mark.parametrize("group", [None, float("nan")])
def test_a_missing_group_in_parquet_is_refused(tmp_path, group):
    path = parquet(
        tmp_path / "t.parquet", file=["a.jpg", "b.jpg"], labels=[["cat"]] * 2, patient=[7.0, group]
    )
    with pytest.raises(ValueError, match="row 1: the cell of its group is blank"):
        read_table(path, group_column="patient", check_files=False)


def test_missing_labels_in_parquet_are_refused(tmp_path):
    path = parquet(tmp_path / "t.parquet", file=["a.jpg", "b.jpg"], labels=[["cat"], None])
    with pytest.raises(ValueError, match="row 1: `labels` says nothing"):
        read_table(path, check_files=False)


def test_a_label_that_says_none_empties_pictures_of_every_form(tmp_path):
    path = json_lines(
        tmp_path / "m.jsonl",
        {"file_name": "a.jpg", "labels": ["none"]},
        {"file_name": "b.jpg", "labels": "cat"},
    )
    raw = read_table(path, none_label="none", check_files=False, **WHOLE)
    assert raw.classes == ("cat",)
    assert present_of(raw) == {"a.jpg": [], "b.jpg": ["cat"]}
    raw = read_table(folders(tmp_path / "c", none__a=1, cat__b=2), none_label="none", **WHOLE)
    assert present_of(raw) == {"cat/b.jpg": ["cat"], "none/a.jpg": []}


def test_a_subset_of_cvat_that_leads_out_of_the_set_is_refused(tmp_path):
    path = write(
        tmp_path / "annotations.xml",
        '<annotations><image name="a.jpg" subset="../../esc"><tag label="cat"/></image></annotations>',
    )
    with pytest.raises(ValueError, match="image 0: `split` must be a name of letters"):
        read_table(path, check_files=False)


# --- The folders in which the pictures lie


def test_a_picture_that_one_fold_lacks_is_not_taken_from_another(tmp_path):
    numbers = [number for number in range(200) if number != 55]
    folders(tmp_path, **{f"fold1__{number:03d}": number for number in numbers}, fold2__055=55)
    path = write(tmp_path / "t.csv", "image,labels", *(f"{number:03d}.jpg,cat" for number in range(200)))
    with pytest.raises(FileNotFoundError, match=r"line 57: .*fold1/055.jpg is not there"):
        read_table(path)


def test_a_name_in_two_folders_is_refused_by_line(tmp_path):
    folders(tmp_path, cats__1=1, cats__3=3, dogs__1=4, dogs__2=2)
    path = write(tmp_path / "t.csv", "image,labels", "2.jpg,dog", "1.jpg,dog", "3.jpg,cat")
    with pytest.raises(ValueError, match=r"line 3: '1.jpg' may be cats/1.jpg or dogs/1.jpg"):
        read_table(path)


def test_archives_that_only_later_rows_lie_in_are_found(tmp_path):
    folders(tmp_path, **{f"images_{1 + n // 60}__{n}": n for n in range(180)})
    path = write(tmp_path / "t.csv", "image,labels", *(f"{number}.jpg,cat" for number in range(180)))
    raw = read_table(path, **WHOLE)
    assert "images_1/, images_2/, images_3/" in raw.read_as
    assert present_of(raw).keys() == {f"images_{1 + n // 60}/{n}.jpg" for n in range(180)}


# --- Label Studio


def label_studio(path, *values):
    """A full export of one answered task for each list of values."""
    tasks = [
        {"data": {"image": f"{name}.jpg"}, "annotations": [{"result": [{"value": value} for value in of]}]}
        for name, of in zip("abcdef", values, strict=False)
    ]
    return write(path, json.dumps(tasks))


@pytest.mark.parametrize("kind", ["ellipselabels", "keypointlabels", "brushlabels", "labels", "choices"])
def test_labels_of_every_kind_of_shape_are_read(tmp_path, kind):
    plain = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}  # a Rectangle without labels
    path = label_studio(
        tmp_path / "e.json", [{"x": 1, kind: ["cat"]}, {"rating": 4}, plain], [{kind: ["dog"]}]
    )
    assert present_of(read_table(path, check_files=False, **WHOLE)) == {"a.jpg": ["cat"], "b.jpg": ["dog"]}


@pytest.mark.parametrize("value", [{"taxonomy": [["animal", "cat"]]}, {"x": 1, "y": 2}])
def test_a_result_without_known_labels_is_refused(tmp_path, value):
    path = label_studio(tmp_path / "e.json", [{"choices": ["cat"]}], [value])
    with pytest.raises(ValueError, match="task 1: expected choices or labels in each result"):
        read_table(path, check_files=False)


def test_shapes_of_the_min_export_are_read(tmp_path):
    tasks = [
        {
            "id": 1,
            "image": "a.jpg",
            "area": [{"x": 1, "rectanglelabels": ["cat"]}, {"ellipselabels": ["dog"]}],
        },
        {"id": 2, "image": "b.jpg", "area": [{"x": 1, "rectanglelabels": ["dog"]}]},
    ]
    path = write(tmp_path / "e.json", json.dumps(tasks))
    raw = read_table(path, check_files=False, **WHOLE)
    assert present_of(raw) == {"a.jpg": ["cat", "dog"], "b.jpg": ["dog"]}


# --- Options that would do nothing


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (label_shapes.voc, {"group_column": "patient"}, "`--group-column` does nothing for"),
        (label_shapes.yolo, {"extension": ".jpg"}, "`--extension` does nothing for"),
        (label_shapes.cvat, {"separator": ","}, "`--separator` does nothing for"),
        (label_shapes.label_studio, {"labels_column": "choices"}, "`--labels-column` does nothing for"),
        (label_shapes.label_studio, {"group_column": "id"}, "`--group-column` does nothing for"),
        (label_shapes.long_form, {"group_column": "Source"}, "`--group-column` does nothing for"),
        (label_shapes.roboflow, {"group_column": "patient"}, "`--group-column` does nothing for"),
        (label_shapes.class_folders, {"file_column": "file"}, "`--file-column` does nothing for"),
        (label_shapes.tags, {"minus_one": "absent"}, "`--minus-one` does nothing for"),
        (label_shapes.one_hot, {"separator": ";"}, "`--separator` does nothing for"),
        (label_shapes.json_lines, {"same_name": "one"}, "`--same-name` does nothing for"),
        (
            label_shapes.json_lines,
            {"group_column": "patient"},
            "no column `patient`, which --group-column names",
        ),
        (
            label_shapes.parquet,
            {"group_column": "patient"},
            "no column `patient`, which --group-column names",
        ),
        (label_shapes.parquet, {"extension": ".jpg"}, "`--extension` does nothing for"),
        (label_shapes.tags, {"classes": ["cat"], "none_label": "cat"}, "`cat` is a class of --classes"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(make(tmp_path), **options, **WHOLE)


def test_a_split_in_each_row_beside_a_folder_for_each_split_is_refused(tmp_path):
    for split in ("train", "test"):
        label_shapes.pictures(tmp_path / split, "a")
        write(tmp_path / split / "t.csv", "file,labels,split", "a.jpg,cat,validation")
    with pytest.raises(ValueError, match="has a column `split`, beside a file for each split"):
        read_table(tmp_path)


# --- What the user says, and what can't be known


def test_a_class_named_none_that_is_listed_is_a_class(tmp_path):
    path = write(tmp_path / "t.csv", "image,tags", "a.jpg,none", "b.jpg,cat|dog")
    raw = read_table(path, classes=["none", "cat", "dog"], check_files=False, **WHOLE)
    assert present_of(raw) == {"a.jpg": ["none"], "b.jpg": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        (["image,thumb,tags", "a,a_small.jpg,cat"], "thumb, image"),
        (["image,mask,tags", "a.jpg,b.png,cat"], "image, mask"),
    ],
)
def test_two_columns_that_may_name_the_pictures_are_asked_about(tmp_path, lines, columns):
    path = write(tmp_path / "t.csv", *lines)
    with pytest.raises(ValueError, match=f"several columns of files, {columns}: --file-column says which"):
        read_table(path, check_files=False)
    raw = read_table(path, file_column="image", check_files=False, **WHOLE)
    assert list(present_of(raw).values()) == [["cat"]]


@pytest.mark.parametrize("subsets", [('subset="train"', ""), ("", 'subset="train"')])
def test_images_of_cvat_with_and_without_a_subset_are_refused(tmp_path, subsets):
    images = "".join(
        f'<image name="{n}.jpg" {subset}><tag label="cat"/></image>' for n, subset in enumerate(subsets)
    )
    path = write(tmp_path / "annotations.xml", f"<annotations>{images}</annotations>")
    with pytest.raises(ValueError, match="image 1: some images have a `subset` and others none"):
        read_table(path, check_files=False)


@pytest.mark.parametrize(
    ("name", "lines", "line", "label"),
    [
        ("t.csv", ["file;labels", "a.jpg;cat", "b.jpg;cow,dog"], 3, "cow,dog"),
        ("t.csv", ["file,labels", "a.jpg,cat", 'b.jpg,"cow, dog"'], 3, "cow, dog"),
        ("m.jsonl", ['{"file": "a.jpg", "labels": "cow, dog"}'], 1, "cow, dog"),
    ],
)
def test_a_comma_in_a_label_of_a_text_is_asked_about(tmp_path, name, lines, line, label):
    path = write(tmp_path / name, *lines)
    with pytest.raises(
        ValueError, match=f"line {line}: `{label}` looks like several labels with `,` in between"
    ):
        read_table(path, check_files=False)
    assert {"cow", "dog"} <= set(read_table(path, separator=",", check_files=False, **WHOLE).classes)
    assert label in read_table(path, separator=";", check_files=False, **WHOLE).classes


def test_labels_in_a_text_of_parquet_are_taken_apart_or_asked_about(tmp_path):
    path = parquet(tmp_path / "t.parquet", file=["a.jpg", "b.jpg"], labels=["cat;dog", '["cat"]'])
    assert present_of(read_table(path, check_files=False, **WHOLE)) == {
        "a.jpg": ["cat", "dog"],
        "b.jpg": ["cat"],
    }
    path = parquet(tmp_path / "t.parquet", file=["a.jpg"], labels=["cow, dog"])
    with pytest.raises(ValueError, match="row 0: `cow, dog` looks like several labels with `,` in between"):
        read_table(path, check_files=False)


def test_a_list_behind_a_blank_is_a_list(tmp_path):
    path = write(tmp_path / "t.csv", "file,labels", 'a.jpg," [""cat"", ""dog""]"')
    assert present_of(read_table(path, check_files=False, **WHOLE)) == {"a.jpg": ["cat", "dog"]}


@pytest.mark.parametrize("cell", ["nan", "NaN", "<NA>", "null"])
def test_a_cell_that_says_nothing_in_words_is_asked_about(tmp_path, cell):
    path = write(tmp_path / "t.csv", "file,labels", "a.jpg,cat", f"b.jpg,{cell}")
    with pytest.raises(ValueError, match=f"line 3: `{cell}` is how programs write a cell that says nothing"):
        read_table(path, check_files=False)
    raw = read_table(path, none_label=cell, check_files=False, **WHOLE)
    assert present_of(raw) == {"a.jpg": ["cat"], "b.jpg": []}


# --- Boxes without sizes


def test_boxes_are_measured_on_the_picture_wherever_it_lies(tmp_path):
    label_shapes.pictures(tmp_path / "elsewhere" / "photos")
    path = write(tmp_path / "labels" / "result.json", json.dumps(label_shapes.coco_of("abcdef")))
    raw = read_table(path, images=tmp_path / "elsewhere", **WHOLE)
    found = {sample.id: sample for sample in raw.splits["train"]()}
    # [10, 5, 20, 10] px of 40 x 20
    assert found["photos/a.jpg"].boxes == ((0.25, 0.25, 0.75, 0.75),)
    assert found["photos/a.jpg"].measured == (20, 40)


def test_a_box_on_no_picture_is_refused_where_pillow_reads_no_avif(tmp_path, monkeypatch):
    known_formats.cache_clear()
    Image.init()  # after which Pillow looks for no further formats
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    path = label_shapes.coco_ids_as_text(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    try:
        with pytest.raises(ValueError, match="image 97 has a `bbox` but no `width` and `height`"):
            read_table(path, **WHOLE)
    finally:
        known_formats.cache_clear()


def test_a_json_is_parsed_once(tmp_path, monkeypatch):
    path = label_shapes.coco_ids_as_text(tmp_path)
    parsed = []
    load = json.load
    monkeypatch.setattr(
        "json.load", lambda file, **options: parsed.append(file.name) or load(file, **options)
    )
    read_table(path, **WHOLE)
    assert parsed == [str(path)]


def test_a_column_of_tags_beside_a_column_file_names_the_option(tmp_path):
    path = write(tmp_path / "t.csv", "file,tags", "a.jpg,cat", "b.jpg,dog")
    with pytest.raises(ValueError, match="--labels-column tags says that `tags` holds the labels"):
        read_table(path, check_files=False)
    raw = read_table(path, labels_column="tags", check_files=False, **WHOLE)
    assert present_of(raw) == {"a.jpg": ["cat"], "b.jpg": ["dog"]}


def test_a_folder_named_images_above_a_set_of_yolo_is_none_of_its_own(tmp_path):
    # Labels lie beside the pictures, as no folder of the set is called `images`.
    source = tmp_path / "images" / "set"
    label_shapes.pictures(source / "photos", "ab")
    write(source / "photos" / "a.txt", "1 0.5 0.5 0.5 0.5")
    write(source / "data.yaml", "train: photos", "names: [cat, dog]")
    assert present_of(read_table(source)) == {"photos/a.jpg": ["dog"], "photos/b.jpg": []}


def test_a_none_label_that_no_picture_has_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", "file,labels", "a.jpg,cat", "b.jpg,empty")
    with pytest.raises(ValueError, match="No picture has the label `emtpy`, which --none-label names"):
        read_table(path, none_label="emtpy", check_files=False)


# --- Splits in a file of their own


def kaggle_celeba(folder, partition=("a.jpg,0", "b.jpg,1", "c.jpg,2")):
    write(folder / "list_eval_partition.csv", "image_id,partition", *partition)
    return write(folder / "list_attr_celeba.csv", "image_id,cat,dog", "a.jpg,1,-1", "b.jpg,-1,1", "c.jpg,1,1")


def test_kaggles_celeba_has_its_splits_from_the_csv_beside_it(tmp_path):
    raw = read_table(kaggle_celeba(tmp_path), minus_one="absent", check_files=False)
    assert {split: [s.id for s in samples()] for split, samples in raw.splits.items()} == {
        "train": ["a.jpg"],
        "validation": ["b.jpg"],
        "test": ["c.jpg"],
    }
    assert "split = list_eval_partition.csv" in raw.read_as


def test_a_text_of_another_name_has_the_splits_beside_it_too(tmp_path):
    write(tmp_path / "list_eval_partition.txt", "a.jpg 0", "b.jpg 2")
    path = write(tmp_path / "attributes.txt", "2", "cat dog", "a.jpg 1 -1", "b.jpg -1 1")
    assert list(read_table(path, check_files=False).splits) == ["train", "test"]


def test_an_empty_partition_is_refused(tmp_path):
    path = kaggle_celeba(tmp_path)
    (tmp_path / "list_eval_partition.csv").write_text("")
    with pytest.raises(ValueError, match=r"list_eval_partition\.csv, line 0: expected a\.jpg and 0, 1 or 2"):
        read_table(path, minus_one="absent", check_files=False)


def test_a_partition_in_another_order_is_refused(tmp_path):
    path = kaggle_celeba(tmp_path, ("b.jpg,1", "a.jpg,0", "c.jpg,2"))
    with pytest.raises(
        ValueError, match=r"partition\.csv, line 2: expected a\.jpg and 0, 1 or 2, in the order of list_attr"
    ):
        read_table(path, minus_one="absent", check_files=False)
