"""What would give a picture wrong labels in silence: it is read rightly, or refused with what to do."""

import json
import re

import label_shapes
import pyarrow
import pyarrow.parquet
import pytest
from label_shapes import write
from miniature import jpeg

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
            {"Training__cat__a": 1, "Training__dog__b": 2, "Testing__cat__c": 3, "Testing__dog__d": 4},
            "not read as classes (Testing, Training): no picture lies in one of them, only in folders below",
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
