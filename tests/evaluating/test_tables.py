"""Tables that are printed have an end, whatever the number of classes, and files hold all of them."""

import csv

import numpy as np
from made_predictions import predictions_with

from mcar_tf.evaluating.results import class_rows, count, summarize
from mcar_tf.evaluating.tables import table_lines, write_class_table


def counted(classes):
    labels = np.arange(20)[:, None] < np.arange(classes) % 20  # from 0 to 19 positives
    return count(predictions_with(labels, np.random.default_rng(0).random(labels.shape)))


def test_of_many_classes_the_most_frequent_are_printed():
    found = counted(1000)
    rows = class_rows(found, [f"class-{c}\x1b[31m" for c in range(1000)])
    lines = table_lines(summarize(found), rows, streams=["fused"], decided_by="all", top3_min_prob=None)
    printed = [line for line in lines if line.startswith("class-")]
    assert len(printed) == 200
    assert all(int(line.split()[1]) >= 16 for line in printed)  # 50 classes each have 19, 18, 17 and 16
    assert "... and 800 classes that fewer images show: see per_class.csv" in lines
    # 50 classes have no positives; 20 of them are named.
    assert lines[0].count("class-") == 20
    assert lines[0].endswith(" and 30 more")
    assert "\x1b" not in "".join(lines)


def test_the_file_has_every_class_and_no_formula(tmp_path):
    rows = class_rows(counted(1000), ["=cmd|' /C calc'!A0", *(f"class-{c}" for c in range(999))])
    write_class_table(tmp_path / "per_class.csv", rows)
    with (tmp_path / "per_class.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 1000
    assert read[0]["class"] == "'=cmd|' /C calc'!A0"
    assert read[0]["AP_fused"] == ""  # no positives
