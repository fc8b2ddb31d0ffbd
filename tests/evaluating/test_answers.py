"""Files are found once each."""

import pytest

from mcar_tf.evaluating.answers import find_images


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


def test_a_single_file_that_is_no_picture_is_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    (tmp_path / "labels.csv").write_bytes(b"text")
    said = []
    find_images([str(tmp_path)], said.append)
    assert said == [f"{tmp_path}: 1 file is no picture and is left out (1 .csv)"]
