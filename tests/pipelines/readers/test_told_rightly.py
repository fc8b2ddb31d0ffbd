"""What would give a picture wrong labels in silence: it is read rightly, or refused with what to do."""

import json
import re

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
