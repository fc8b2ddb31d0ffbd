"""What was found in pictures is written whole, and each format says the same."""

import csv
import json
import os
import sys

import pyarrow.parquet
import pytest

from mcar_tf.evaluating.answer_files import ROWS_OF_A_GROUP, check_format, write_answers

LABEL = {"class": "cat", "prob": 0.9, "global_prob": 0.5, "local_prob": 0.9}
REGION = {"class": "cat", "prob": 0.9, "global_prob": 0.5, "region_prob": 0.8, "box": [0.0, 0.25, 0.5, 1.0]}
ANSWERS = [
    {"image": "a.jpg", "labels": [LABEL], "regions": [REGION]},
    {"image": "b.jpg", "labels": [], "regions": [], "error": "is an empty file"},
]


def test_a_name_that_is_no_text_is_written(tmp_path):
    image = os.fsdecode(b"caf\xe9.png")  # Latin-1, as old archives have it
    write_answers(tmp_path / "predictions.jsonl", [{"image": image}], "jsonl")
    assert json.loads((tmp_path / "predictions.jsonl").read_text("utf-8")) == {"image": image}
    write_answers(tmp_path / "a.parquet", [{"image": image}], "parquet")
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["image"].to_pylist() == ["caf\\udce9.png"]


def test_an_interruption_keeps_what_was_predicted_and_spoils_no_earlier_result(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_answers(path, [{"image": "earlier.jpg"}], "jsonl")

    def interrupted():
        yield {"image": "a.jpg"}
        yield {"image": "b.jpg"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answers(path, interrupted(), "jsonl")
    assert json.loads(path.read_text()) == {"image": "earlier.jpg"}
    (kept,) = tmp_path.glob("partial-*-predictions.jsonl")
    assert [json.loads(line)["image"] for line in kept.read_text().splitlines()] == ["a.jpg", "b.jpg"]


def test_csv_cells_are_no_formulas(tmp_path):
    label = {"class": "=cmd|' /C calc'!A0", "prob": 0.9, "global_prob": 0.5, "local_prob": 0.9}
    answers = [
        {"image": "-a.jpg", "labels": [label], "regions": []},
        {"image": "b.jpg", "labels": [], "regions": []},
    ]
    write_answers(tmp_path / "predictions.csv", answers, "csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["'-a.jpg", "'=cmd|' /C calc'!A0", "0.9", "0.5", "0.9", "", "", "", "", ""]
    assert rows[2] == ["b.jpg", *[""] * 9]
    assert len(rows) == 3


def test_parquet_says_what_json_says(tmp_path):
    write_answers(tmp_path / "a.parquet", ANSWERS, "parquet")
    first, second = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert first == {**ANSWERS[0], "error": None}
    assert second == ANSWERS[1]


def test_parquet_says_what_is_present_if_all_classes_are_listed(tmp_path):
    answer = {"image": "a.jpg", "labels": [{**LABEL, "present": False}], "regions": []}
    write_answers(tmp_path / "a.parquet", [answer], "parquet", all_classes=True)
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["labels"].to_pylist() == [answer["labels"]]


def test_parquet_is_written_group_by_group(tmp_path):
    answers = [{**ANSWERS[0], "image": f"{i}.jpg"} for i in range(ROWS_OF_A_GROUP + 1)]
    write_answers(tmp_path / "a.parquet", answers, "parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROWS_OF_A_GROUP, 1]
    assert file.read()["image"].to_pylist() == [answer["image"] for answer in answers]


def test_an_interrupted_parquet_file_can_be_read(tmp_path):
    def interrupted():
        yield from ANSWERS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answers(tmp_path / "a.parquet", interrupted(), "parquet")
    (kept,) = tmp_path.iterdir()
    assert pyarrow.parquet.read_table(kept)["image"].to_pylist() == ["a.jpg", "b.jpg"]


def test_without_pyarrow_the_installation_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_format("jsonl")
    with pytest.raises(
        ValueError, match=r"Parquet needs pyarrow: pip install pyarrow. Or give --format jsonl"
    ):
        check_format("parquet")
