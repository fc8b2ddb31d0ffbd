"""Tables as programs and people leave them: columns of row numbers, emptied rows, endings in capitals."""

import json

import pytest
from label_shapes import coco_of, pictures, voc_xml, write
from miniature import jpeg

from pipelines.readers.table import read_table

WHOLE = {"val_fraction": 0, "test_fraction": 0}


def labels_of(raw):
    """File -> its classes."""
    return {
        sample.id: {raw.classes[label] for label in sample.present}
        for samples in raw.splits.values()
        for sample in samples()
    }


@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
@pytest.mark.parametrize("file", ["file", "filename"])
def test_a_column_of_row_numbers_that_pandas_left_is_no_class(tmp_path, first, file):
    pictures(tmp_path, "ab")
    path = write(tmp_path / "t.csv", f"{first},{file},cat,dog", "0,a.jpg,1,0", "1,b.jpg,1,1")
    raw = read_table(path, **WHOLE)
    assert labels_of(raw) == {"a.jpg": {"cat"}, "b.jpg": {"cat", "dog"}}
    assert raw.remarks == [f"columns that are not read: {first or 'one without a name'}"]


def test_two_columns_without_a_name_are_no_two_columns_of_one_name(tmp_path):
    pictures(tmp_path, "ab")
    path = write(tmp_path / "t.csv", "file,labels,,", "a.jpg,cat,,", "b.jpg,dog,,seen")
    assert labels_of(read_table(path, **WHOLE)) == {"a.jpg": {"cat"}, "b.jpg": {"dog"}}


def test_rows_that_were_emptied_in_a_spreadsheet_are_blank_lines(tmp_path):
    pictures(tmp_path, "ab")
    path = write(tmp_path / "t.csv", "file,cat,dog", "a.jpg,1,0", "b.jpg,0,1", ",,", ",,")
    assert labels_of(read_table(path, **WHOLE)) == {"a.jpg": {"cat"}, "b.jpg": {"dog"}}


def test_endings_in_capitals_on_disk_are_found_and_said(tmp_path):
    pictures(tmp_path / "photos", "ab", ".JPG")
    pictures(tmp_path / "photos", "c", ".jpg")
    path = write(tmp_path / "t.csv", "image,labels", "a.jpg,cat", "b.jpg,dog", "c.jpg,cat;dog")
    raw = read_table(path, **WHOLE)
    assert raw.read_as.startswith("file = image in photos/ (endings in capitals or not), labels = labels")
    assert list(labels_of(raw)) == ["photos/a.JPG", "photos/b.JPG", "photos/c.jpg"]


def test_of_two_files_that_differ_by_capitals_the_one_that_is_named_is_meant(tmp_path):
    pictures(tmp_path, "a", ".JPG")
    pictures(tmp_path, "b", ".JPG")
    pictures(tmp_path, "b", ".jpg")
    path = write(tmp_path / "t.csv", "image,labels", "a.jpg,cat", "b.jpg,dog")
    assert list(labels_of(read_table(path, **WHOLE))) == ["a.JPG", "b.jpg"]


def test_f_beside_m_is_no_false(tmp_path):
    pictures(tmp_path, "abc")
    rows = ("a.jpg,F,1,0", "b.jpg,F,0,1", "c.jpg,M,0,0")
    raw = read_table(write(tmp_path / "t.csv", "image,sex,cat,dog", *rows), **WHOLE)
    assert raw.classes == ("cat", "dog")
    assert raw.remarks == ["columns that are not read: sex"]


def test_label_studio_s_columns_about_the_work_are_no_classes(tmp_path):
    pictures(tmp_path, "abc")
    header = "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at"
    both = '"{""choices"":[""cat"",""dog""]}"'
    rows = [
        f"{number},1,{cell},2024,{number},/data/upload/1/1a2b3c4d-{name}.jpg,2.1,2024"
        for number, (name, cell) in enumerate({"a": "cat", "b": both, "c": ""}.items())
    ]
    raw = read_table(write(tmp_path / "t.csv", header, *rows), **WHOLE)
    assert labels_of(raw) == {"a.jpg": {"cat"}, "b.jpg": {"cat", "dog"}, "c.jpg": set()}
    assert 'lists in choice, as in {"choices":["cat","dog"]}, are read as lists' in raw.remarks
    # The labels may have a name of their own; then only the user can tell.
    path = write(tmp_path / "t.csv", header.replace("choice", "animals"), *rows)
    with pytest.raises(ValueError, match="--labels-column says which holds the labels"):
        read_table(path, **WHOLE)
    assert labels_of(read_table(path, labels_column="animals", **WHOLE))["b.jpg"] == {"cat", "dog"}


def test_cells_that_a_column_per_class_cannot_hold_are_named(tmp_path):
    pictures(tmp_path, "ab")
    path = write(tmp_path / "t.csv", "image,cat,dog", "a.jpg,x,", "b.jpg,,x")
    with pytest.raises(
        ValueError, match="holds 1 and 0, True and False or yes and no, and nothing where nobody"
    ):
        read_table(path, **WHOLE)


@pytest.mark.parametrize("used", [False, True])
def test_a_category_above_all_others_is_a_class_only_if_an_object_has_it(tmp_path, used):
    pictures(tmp_path, "a")
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "dog", "supercategory": "animals"},
    ]
    objects = [{"image_id": 7, "category_id": category} for category in ((0, 1) if used else (1,))]
    content = {"images": [{"id": 7, "file_name": "a.jpg"}], "categories": categories, "annotations": objects}
    raw = read_table(write(tmp_path / "c.json", json.dumps(content)), **WHOLE)
    assert raw.classes == (("animals", "cat", "dog") if used else ("cat", "dog"))
    said = "c.json: the category `animals` is no class: it is the supercategory of all others, and no object has it"
    assert (said in raw.remarks) is not used


@pytest.mark.parametrize("folder", ["annotations", "annotations/xmls"])
def test_vocs_folders_may_have_small_letters(tmp_path, folder):
    pictures(tmp_path / "images", "ab")
    for name, objects in {"a": ["cat"], "b": ["cat", "dog"]}.items():
        write(tmp_path / folder / f"{name}.xml", voc_xml(name, objects))
    raw = read_table(tmp_path, **WHOLE)
    assert labels_of(raw) == {"images/a.jpg": {"cat"}, "images/b.jpg": {"cat", "dog"}}


@pytest.mark.parametrize("column", ["Split", "set"])
def test_a_column_of_splits_is_known_by_its_name_or_its_cells(tmp_path, column):
    pictures(tmp_path, "abc")
    rows = ("a.jpg,cat,Training", "b.jpg,dog,Val", "c.jpg,cat,TEST")
    raw = read_table(write(tmp_path / "t.csv", f"image,label,{column}", *rows))
    assert {split: [s.id for s in samples()] for split, samples in raw.splits.items()} == {
        "train": ["a.jpg"],
        "test": ["c.jpg"],
        "validation": ["b.jpg"],
    }
    assert f"split = {column}" in raw.read_as


def test_labels_that_are_called_as_splits_are_no_splits(tmp_path):
    pictures(tmp_path, "ab")
    raw = read_table(write(tmp_path / "t.csv", "image,label", "a.jpg,train", "b.jpg,train"), **WHOLE)
    assert labels_of(raw) == {"a.jpg": {"train"}, "b.jpg": {"train"}}


def test_two_columns_of_splits_are_asked_about(tmp_path):
    pictures(tmp_path, "ab")
    path = write(tmp_path / "t.csv", "image,label,set,part", "a.jpg,cat,train,test", "b.jpg,cat,test,train")
    with pytest.raises(ValueError, match="set, part both name splits: rename one of them `split`"):
        read_table(path, **WHOLE)


def test_folders_may_be_called_training_and_testing(tmp_path):
    for split in ("Training", "Testing"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.jpg").write_bytes(jpeg(len(split + name) + ord(name[0])))
    assert set(read_table(tmp_path, same_name="several").splits) == {"train", "test"}


def test_cocos_layout_is_read_from_its_root_and_from_its_json(tmp_path):
    pictures(tmp_path / "images" / "default")
    json_file = write(tmp_path / "annotations" / "instances_default.json", json.dumps(coco_of("abcdef")))
    for source in (tmp_path, tmp_path / "annotations", json_file):
        raw = read_table(source, **WHOLE)
        assert raw.read_as.startswith("COCO's lists: file = file_name in images/default/")
        assert labels_of(raw)["images/default/b.jpg"] == {"cat", "dog"}


def test_cocos_layout_may_have_a_json_for_each_split(tmp_path):
    for split, names in {"train2017": "abcd", "val2017": "ef"}.items():
        pictures(tmp_path / split, names)
        write(tmp_path / "annotations" / f"instances_{split}.json", json.dumps(coco_of(names)))
        write(tmp_path / "annotations" / f"captions_{split}.json", "{}")
    raw = read_table(tmp_path)
    assert {split: [s.id for s in samples()] for split, samples in raw.splits.items()} == {
        "train": [f"train2017/{name}.jpg" for name in "abcd"],
        "validation": [f"val2017/{name}.jpg" for name in "ef"],
    }


def test_the_folder_of_vocs_xml_may_be_named_itself(tmp_path):
    pictures(tmp_path / "JPEGImages", "a")
    write(tmp_path / "Annotations" / "a.xml", voc_xml("a", ["cat"]))
    assert labels_of(read_table(tmp_path / "Annotations", **WHOLE)) == {"JPEGImages/a.jpg": {"cat"}}
