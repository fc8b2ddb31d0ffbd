"""Files are found once each, and what was found in them is written whole."""

import csv
import json
import os

import pytest

from mcar_tf.evaluating.answers import find_images, write_answers


def test_a_name_that_is_no_text_is_written(tmp_path):
    image = os.fsdecode(b"caf\xe9.png")  # Latin-1, as old archives have it
    write_answers(tmp_path / "predictions.jsonl", [{"image": image}], "jsonl")
    assert json.loads((tmp_path / "predictions.jsonl").read_text("utf-8")) == {"image": image}


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


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("nothing.jpg", "There is no image"), ("*.jpg", "There is no image"), ("empty", "holds no images")],
)
def test_what_stands_for_no_image_is_refused(pattern, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=message):
        find_images([str(tmp_path / pattern)])


def test_an_image_named_twice_is_looked_at_once(photos):
    assert find_images([str(photos / "1.png"), str(photos)])[:2] == [photos / "1.png", photos / "0.png"]


def test_a_folder_gives_every_picture_no_junk_and_says_what_else_there_is(tmp_path):
    (tmp_path / "__MACOSX").mkdir()
    names = ("a.JPG", "b.jfif", "c.jpe", "d.avif", "e.heic")
    junk = ("._a.JPG", ".DS_Store", "Thumbs.db", "__MACOSX/._b.jpg", "__MACOSX/b.jpg")
    for name in (*names, *junk, "labels.csv", "notes.txt", "old.txt", "README"):
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "scan").write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    (tmp_path / "web").write_bytes(b"RIFF\x00\x00\x00\x00WEBPVP8 ")
    said = []
    assert find_images([str(tmp_path)], said.append) == [tmp_path / name for name in (*names, "scan", "web")]
    assert said == [
        f"{tmp_path}: 4 files are not pictures and are left out (1 .csv, 2 .txt, 1 without an ending)"
    ]


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
