"""Image files reach the model as they are."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mcar_tf.evaluating import photos as photos_module
from mcar_tf.evaluating.photos import predict_files, read_ahead, read_pixels
from pipelines.pictures import BadPicture, read_file, read_picture


def test_jpeg_png_and_webp_bytes_are_passed_on_as_they_are(photos):
    for name in ("0.png", "deeper/3.WEBP"):
        assert read_picture(read_file(photos / name)).encoded == (photos / name).read_bytes()
    # The WebP holds the pixels of the first PNG.
    np.testing.assert_array_equal(
        read_pixels(photos / "0.png", 32), read_pixels(photos / "deeper" / "3.WEBP", 32)
    )


def test_another_format_is_passed_on_without_loss(photos, tmp_path):
    with Image.open(photos / "0.png") as image:
        image.save(tmp_path / "0.bmp")
    assert read_picture(read_file(tmp_path / "0.bmp")).encoded.startswith(b"\x89PNG")
    np.testing.assert_array_equal(read_pixels(photos / "0.png", 32), read_pixels(tmp_path / "0.bmp", 32))


def test_files_are_read_ahead_in_their_order(photos):
    names = [photos / f"{i % 3}.png" for i in range(40)]
    names[7] = photos / "notes.txt"
    names[30] = photos / "gone.png"
    read = list(read_ahead(names, partial(read_pixels, image_size=32), ahead=5))
    assert [file for file, _ in read] == names
    assert (read[7][1], read[30][1]) == ("is not a picture in a known format", "is gone")
    for file, pixels in read[:7]:
        np.testing.assert_array_equal(pixels, read_pixels(file, 32))


def test_no_more_is_read_ahead_than_was_said(photos):
    read = []
    pictures = read_ahead([photos / "0.png"] * 100, read.append, ahead=5)
    next(pictures)
    pictures.close()
    assert len(read) <= 6


def test_predicting_takes_as_long_as_the_slower_of_reading_and_the_model(photos, monkeypatch):
    """As beside a GPU, neither needs the other's processor: 160 pictures of 0.01 s, ten batches of 0.2 s."""

    def read(file, image_size):
        time.sleep(0.01)
        return np.zeros((image_size, image_size, 3), np.float32)

    def look(images):
        time.sleep(0.2)
        rows = np.zeros((len(images), 1), np.float32)
        outputs = dict.fromkeys(("probs", "global_probs", "local_probs", "box_probs"), rows)
        outputs |= {"boxes": np.zeros((len(images), 1, 4)), "box_classes": rows.astype(np.int32)}
        return {name: tf.constant(value) for name, value in outputs.items()}

    monkeypatch.setattr(photos_module, "read_pixels", read)
    monkeypatch.setattr(photos_module, "reading_threads", lambda: ThreadPoolExecutor(1))
    monkeypatch.setattr(photos_module, "_compiled_look", lambda model, image_size: look)
    start = time.perf_counter()
    answers = list(predict_files(keras.Model(), [photos / "0.png"] * 160, ["cat"], [], image_size=8))
    elapsed = time.perf_counter() - start
    assert len(answers) == 160
    # One thread reads for 1.6 s while the model, after the first 0.16 s, looks for 2: 2.16 s, and 3.6 one by one.
    assert 2.0 <= elapsed <= 2.9


def test_what_only_decoding_shows_is_named_too(photos):
    half = (photos / "0.png").read_bytes()[:-200]
    (photos / "0.png").write_bytes(half)
    with pytest.raises(BadPicture, match="is damaged or cut off"):
        read_pixels(photos / "0.png", 32)
