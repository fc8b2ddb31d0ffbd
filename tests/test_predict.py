import csv
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from mcar_tf import calibrate
from mcar_tf.evaluating.answer_files import CSV_COLUMNS
from mcar_tf.predict import main
from pipelines.files import locked


def test_a_folder_gives_an_object_an_image_and_a_drawn_picture_each(tiny_run, photos, capsys):
    main(
        ["--run", str(tiny_run), "--images", str(photos), "--draw", "--batch-size", "3", "--threshold", "0.5"]
    )
    rows = [
        json.loads(line) for line in (tiny_run / "predictions" / "predictions.jsonl").read_text().splitlines()
    ]
    assert [row["image"] for row in rows] == [
        str(photos / name) for name in ("0.png", "1.png", "2.png", "deeper/3.WEBP")
    ]
    # The WebP holds the pixels of the first PNG; neither format nor place in the batch changes what is seen.
    assert [label["class"] for label in rows[3]["labels"]] == [label["class"] for label in rows[0]["labels"]]
    for row in rows:
        assert all(label["prob"] == max(label["global_prob"], label["local_prob"]) for label in row["labels"])
        assert len(row["regions"]) == 2
    drawn = sorted((tiny_run / "predictions").glob("*.png"))
    assert len(drawn) == 4
    with Image.open(drawn[0]) as image:
        assert image.size[0] % 64 == 0  # 64 px wide, times a whole factor
    assert "0.png: " in capsys.readouterr().out


def test_csv_has_a_row_a_label(tiny_run, photos, tmp_path):
    arguments = [
        "--run",
        str(tiny_run),
        "--images",
        str(photos / "*.png"),
        "--format",
        "csv",
        "--threshold",
        "0",
    ]
    main([*arguments, "--out-dir", str(tmp_path / "out")])
    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "predictions.csv").read_text())))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 1 + 3 * 4  # at threshold 0 every class of every image


def test_parquet_has_the_rows_of_json(tiny_run, photos):
    (photos / "1.png").write_bytes(b"")
    words = ["--run", str(tiny_run), "--images", str(photos), "--threshold", "0.5", "--all-classes"]
    for form in ("jsonl", "parquet"):
        with pytest.raises(ValueError, match="1 of 4 images could not be read"):
            main([*words, "--format", form])
    folder = tiny_run / "predictions"
    rows = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert rows == [{"error": None, **line} for line in lines]


def test_an_unreadable_image_is_named_and_loses_nothing(tiny_run, photos):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:60])
    (photos / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 4 images could not be read.*1\.png .*2\.png"):
        main(["--run", str(tiny_run), "--images", str(photos)])
    lines = (tiny_run / "predictions" / "predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["image"][-5:] for answer in answers] == ["0.png", "1.png", "2.png", ".WEBP"]
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert answers[2]["error"] == "is an empty file"


def test_csv_accounts_for_every_image(tiny_run, photos):
    (photos / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 4 images could not be read"):
        main(["--run", str(tiny_run), "--images", str(photos), "--format", "csv", "--threshold", "1"])
    rows = list(csv.DictReader(io.StringIO((tiny_run / "predictions" / "predictions.csv").read_text())))
    assert [(row["image"][-5:], row["error"]) for row in rows] == [
        ("0.png", ""),
        ("1.png", "is an empty file"),
        ("2.png", ""),
        (".WEBP", ""),
    ]


def test_all_classes_are_listed_with_what_is_present(tiny_run, photos, capsys):
    words = ["--run", str(tiny_run), "--images", str(photos / "0.png"), "--all-classes", "--draw"]
    main([*words, "--threshold", "0.5"])
    (answer,) = map(json.loads, (tiny_run / "predictions" / "predictions.jsonl").read_text().splitlines())
    assert len(answer["labels"]) == 4
    for label in answer["labels"]:
        assert label["present"] == (label["prob"] >= 0.5)
    main([*words, "--threshold", "1", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO((tiny_run / "predictions" / "predictions.csv").read_text())))
    assert [row["present"] for row in rows] == ["0"] * 4
    assert "0.png: nothing above the threshold" in capsys.readouterr().out


def test_no_odd_picture_costs_the_others_their_answers(tiny_run, photos):
    size = struct.pack(">II", 20_000, 10_000)
    png = (photos / "0.png").read_bytes()
    (photos / "bomb.png").write_bytes(png[:16] + size + png[24:])
    (photos / "program.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with (photos / "sparse.png").open("wb") as stream:
        stream.truncate(30 * 10**9)
    with Image.open(photos / "0.png") as image:
        image.save(photos / "odd.jpg", exif=b"Exif\0\0II*\0")
        image.save(photos / "odd.webp", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
        image.save(photos / f"{'x' * 251}.png")
    with pytest.raises(
        ValueError, match=r"3 of 10 images could not be read.*bomb\.png has 20000 x 10000 pixels"
    ) as error:
        main(["--run", str(tiny_run), "--images", str(photos), "--draw"])
    assert "program.jpg is not a picture in a known format" in str(error.value)
    assert "sparse.png has 30,000 MB" in str(error.value)
    lines = (tiny_run / "predictions" / "predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 10
    names = [Path(answer["image"]).name for answer in answers if "error" not in answer]
    assert names == ["0.png", "1.png", "2.png", "3.WEBP", "odd.jpg", "odd.webp", "x" * 251 + ".png"]
    assert len(list((tiny_run / "predictions").glob("*.png"))) == 7


def test_two_into_one_folder_do_not_mix(tiny_run, photos, tmp_path):
    words = ["--run", str(tiny_run), "--images", str(photos), "--out-dir", str(tmp_path / "out")]
    main(words)
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    with (
        locked(tmp_path / "out" / ".lock", ""),
        pytest.raises(
            FileExistsError, match=r"out is being filled by another predict. Wait, or give --out-dir"
        ),
    ):
        main([*words, "--draw"])
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    assert list((tmp_path / "out").glob("*.png")) == []


def test_the_thresholds_are_said(tiny_run, photos, capsys):
    main(["--run", str(tiny_run), "--images", str(photos)])
    assert "thresholds: 0.6 for every class (`calibrate` finds better ones)" in capsys.readouterr().out
    main(["--run", str(tiny_run), "--images", str(photos), "--threshold", "0.25"])
    assert "thresholds: 0.25 for every class" in capsys.readouterr().out
    calibrate.main(["--run", str(tiny_run), "--min-positives", "1"])
    main(["--run", str(tiny_run), "--images", str(photos)])
    assert "thresholds: each class's own, from " in capsys.readouterr().out


def test_names_do_not_reach_the_terminal_as_commands(tiny_run, tmp_path, capsys, rename_classes):
    rename_classes(tiny_run, "a\x1b[31m", "b", "c", "d")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p\x1b[2J.png")
    (tmp_path / "q\x1b[2J.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"q\\x1b\[2J\.png") as error:
        main(["--run", str(tiny_run), "--images", str(tmp_path), "--threshold", "0"])
    printed = capsys.readouterr().out
    assert "a\\x1b[31m 0." in printed
    assert "\x1b" not in printed + str(error.value)
