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
