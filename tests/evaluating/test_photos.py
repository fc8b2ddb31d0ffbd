"""Image files reach the model as they are."""

import io

import numpy as np
from PIL import Image

from mcar_tf.evaluating.photos import read_encoded


def test_jpeg_and_png_bytes_are_passed_on_as_they_are(photos):
    assert read_encoded(photos / "0.png") == (photos / "0.png").read_bytes()
    with Image.open(io.BytesIO(read_encoded(photos / "deeper" / "3.WEBP"))) as webp:
        assert webp.format == "PNG"
        with Image.open(photos / "0.png") as png:
            np.testing.assert_array_equal(np.asarray(webp), np.asarray(png))
