import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from mcar_tf.predict import CSV_COLUMNS, draw, find_images, main, read_encoded, write_predictions


@pytest.fixture
def photos(make_sample, tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(make_sample("test", i).image)
    with Image.open(folder / "0.png") as image:
        image.save(folder / "deeper" / "3.WEBP", "WEBP", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    return folder


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


def test_a_predicted_class_without_a_region_is_in_the_picture_too(photos, tmp_path):
    label = {"class": "red", "prob": 0.9, "global_prob": 0.05, "local_prob": 0.9}
    region = label | {"region_prob": 0.9, "box": [0.2, 0.2, 0.9, 0.9]}
    draw(photos / "0.png", {"labels": [label], "regions": [region]}, tmp_path / "label.png")
    draw(photos / "0.png", {"labels": [], "regions": [region]}, tmp_path / "nothing.png")
    label, nothing = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("label", "nothing"))
    rows, columns = np.nonzero((label != nothing).any(axis=-1))
    assert rows.min() == columns.min() == 0  # in the corner, on white, and nowhere else: no box
    assert rows.max() < 30
    assert (label[1, 1] == 255).all()


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


def test_an_unreadable_image_is_named_and_loses_nothing(tiny_run, photos):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:60])
    (photos / "2.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 4 images could not be read.*1\.png .*2\.png"):
        main(["--run", str(tiny_run), "--images", str(photos)])
    lines = (tiny_run / "predictions" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"][-5:] for line in lines] == ["0.png", ".WEBP"]


def test_a_name_that_is_no_text_is_written(tmp_path):
    image = os.fsdecode(b"caf\xe9.png")  # Latin-1, as old archives have it
    write_predictions(tmp_path / "predictions.jsonl", [{"image": image}], "jsonl")
    assert json.loads((tmp_path / "predictions.jsonl").read_text("utf-8")) == {"image": image}


def test_an_interruption_keeps_what_was_predicted_and_spoils_no_earlier_result(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [{"image": "earlier.jpg"}], "jsonl")

    def interrupted():
        yield {"image": "a.jpg"}
        yield {"image": "b.jpg"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, interrupted(), "jsonl")
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


def test_jpeg_and_png_bytes_are_passed_on_as_they_are(photos):
    assert read_encoded(photos / "0.png") == (photos / "0.png").read_bytes()
    with Image.open(io.BytesIO(read_encoded(photos / "deeper" / "3.WEBP"))) as webp:
        assert webp.format == "PNG"
        with Image.open(photos / "0.png") as png:
            np.testing.assert_array_equal(np.asarray(webp), np.asarray(png))
