import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scenes import encode, gradient

from pipelines.decode import decode, decode_and_resize, read_orientation, resize, turn_upright
from pipelines.pictures import BadPicture, check_picture


def exif(orientation: int, endian: str = "<") -> bytes:
    tags = Image.Exif()
    tags.endian = endian
    tags[0x010F] = "a maker, so that orientation is not the first tag"
    tags[0x0112] = orientation
    return tags.tobytes()


def as_a_person_sees_it(encoded: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


def upright(encoded: bytes) -> np.ndarray:
    return turn_upright(decode(tf.constant(encoded)), check_picture(encoded).orientation).numpy()


GOOD = {
    "jpeg": encode(gradient()),
    "progressive": encode(gradient(), progressive=True),
    "4:2:0": encode(gradient(), subsampling=2, quality=70),
    "grey": encode(gradient().convert("L")),
    "cmyk": encode(gradient().convert("CMYK")),
    "png": encode(gradient(), "PNG"),
    "palette": encode(gradient().convert("P"), "PNG"),
    "one bit": encode(gradient().convert("1"), "PNG"),
    "grey png": encode(gradient().convert("L"), "PNG"),
    "opaque alpha": encode(gradient().convert("RGBA"), "PNG"),
    "16 grey levels": encode(gradient().convert("L").quantize(16).convert("P"), "PNG"),
    "animated png, its first picture": encode(
        gradient(), "PNG", save_all=True, append_images=[gradient().rotate(90)]
    ),
    "two pictures in one file (MPO)": encode(gradient(), "MPO", save_all=True, append_images=[gradient()]),
    "junk behind the end": encode(gradient()) + bytes(50),
}


@pytest.mark.parametrize("name", GOOD)
def test_training_sees_what_a_person_sees(name):
    encoded = GOOD[name]
    picture = check_picture(encoded)
    assert (picture.height, picture.width, picture.orientation) == (24, 40, 1)
    assert picture.encoded is encoded
    np.testing.assert_array_equal(upright(encoded), as_a_person_sees_it(encoded))


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned_back(orientation, endian):
    encoded = encode(gradient(), exif=exif(orientation, endian))
    picture = check_picture(encoded)
    assert picture.orientation == orientation
    assert (picture.height, picture.width) == ((24, 40) if orientation <= 4 else (40, 24))
    np.testing.assert_array_equal(upright(encoded), as_a_person_sees_it(encoded))
    assert int(tf.function(read_orientation)(tf.constant(encoded))) == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_know_is_none(orientation):
    encoded = encode(gradient(), exif=exif(orientation))
    assert check_picture(encoded).orientation == 1
    assert int(read_orientation(tf.constant(encoded))) == 1


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        encode(gradient()),
    ],
)
def test_no_orientation_or_a_broken_one_is_upright(encoded):
    assert int(read_orientation(tf.constant(encoded))) == 1


def test_16_bits_are_cut_to_8():
    levels = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 68
    encoded = encode(Image.fromarray(levels), "PNG")
    np.testing.assert_array_equal(upright(encoded)[..., 1], levels >> 8)


def test_a_palettes_transparent_colours_are_white():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    for place in range(3):
        image.putpixel((place, 0), place)
    seen = upright(encode(image, "PNG", transparency=bytes([255, 0, 51])))  # opacity of each colour
    assert seen[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]  # black: 255 * 0.8


def test_16_bits_of_colour_are_cut_to_8_too():
    levels = np.random.default_rng(0).integers(0, 65536, (24, 40, 3))
    encoded = png(levels.astype(">u2").tobytes(), depth=16, kind=2)
    assert check_picture(encoded).width == 40
    np.testing.assert_array_equal(upright(encoded), levels >> 8)


def test_what_is_transparent_is_white():
    rgba = np.zeros((24, 40, 4), np.uint8)
    rgba[:, :20] = (255, 0, 0, 255)
    rgba[:, 30:] = (0, 0, 0, 51)  # a fifth of black on white: 255 * 0.8
    seen = upright(encode(Image.fromarray(rgba), "PNG"))
    assert seen[0, 0].tolist() == [255, 0, 0]
    assert seen[0, 25].tolist() == [255, 255, 255]
    assert seen[0, 35].tolist() == [204, 204, 204]


def png(rows: bytes, depth: int, kind: int, height: int = 24, width: int = 40) -> bytes:
    """A PNG from its rows' bytes, as Pillow writes none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stride = len(rows) // height
    unfiltered = b"".join(b"\0" + rows[stride * y : stride * (y + 1)] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(unfiltered))
        + chunk(b"IEND", b"")
    )


def bomb() -> bytes:
    """A PNG of 10,000 x 10,000 px in a hundred bytes, as far as a header tells."""
    return png(b"", 8, 2, height=10_000, width=10_000)


JPEG = encode(gradient(240, 320))
PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)), "PNG")
BAD = {
    "empty": (b"", "empty file"),
    "text": (b"no picture at all " * 20, "no picture"),
    "html, as a web server answers": (b"<html><body>404 Not Found</body></html>", "no picture"),
    "gif": (encode(gradient(), "GIF"), "is GIF: only JPEG and PNG"),
    "animated gif": (encode(gradient(), "GIF", save_all=True, append_images=[gradient().rotate(90)]), "is GIF"),
    "webp": (encode(gradient(), "WEBP"), "is WEBP: only JPEG and PNG"),
    "bmp": (encode(gradient(), "BMP"), "is BMP"),
    "png with a colour for transparent": (
        encode(gradient(), "PNG", transparency=(0, 0, 0)),
        "is PNG with a colour that stands for transparent",
    ),
    "bomb": (bomb(), "10000 x 10000 pixels, more than 50 megapixels"),
    "jpeg without its last byte": (JPEG[:-1], "damaged or cut off"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "damaged or cut off"),
    "a jpeg's header": (JPEG[:200], "damaged or cut off"),
    "half a png": (PNG[: len(PNG) // 2], "damaged or cut off"),
    "png with a flipped bit": (bytes(b ^ (i == 2000) for i, b in enumerate(PNG)), "damaged or cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_training_must_not_see_is_refused_with_the_reason(name):
    encoded, why = BAD[name]
    with pytest.raises(BadPicture, match=why):
        check_picture(encoded)


def test_the_limit_of_size_can_be_moved():
    check_picture(GOOD["png"], max_megapixels=0.00096)
    with pytest.raises(BadPicture, match=r"40 x 24 pixels, more than 0\.0009 megapixels"):
        check_picture(GOOD["png"], max_megapixels=0.0009)


@pytest.mark.parametrize("size", [16, 33, 96, 200])
@pytest.mark.parametrize("sides", [(120, 90), (1, 70), (64, 300)])
def test_resizing_is_tensorflows_to_the_bit(sides, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    expected = tf.image.resize(pixels, (size, size), antialias=True)
    np.testing.assert_array_equal(resize(tf.constant(pixels), size), expected)


@pytest.mark.parametrize("size", [16, 33, 96])
def test_resizing_is_pillows(size):
    photo = gradient(120, 90)
    ours = decode_and_resize(tf.constant(encode(photo, "PNG")), 1, size).numpy()
    pillows = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    assert ours.shape == (size, size, 3)
    # Pillow works in whole levels, in two passes.
    assert np.abs(ours - pillows).max() < 1.01


def test_a_picture_of_the_right_size_is_left_as_it_is():
    photo = gradient(32, 32)
    np.testing.assert_array_equal(
        decode_and_resize(tf.constant(encode(photo, "PNG")), 1, 32), np.asarray(photo)
    )


def test_a_large_jpeg_is_decoded_smaller_but_not_below_the_margin():
    encoded = tf.constant(encode(gradient(240, 320)))
    assert decode(encoded).shape == (240, 320, 3)
    assert decode(encoded, least_side=121).shape == (240, 320, 3)
    assert decode(encoded, least_side=120).shape == (120, 160, 3)
    assert decode(encoded, least_side=30).shape == (30, 40, 3)


def test_decoding_smaller_changes_less_than_another_way_of_resizing_would():
    from sklearn.datasets import load_sample_images

    for pixels in load_sample_images().images:  # two photographs of 427 x 640 px
        photo = Image.fromarray(pixels)
        encoded = tf.constant(encode(photo, quality=92))
        assert decode(encoded, least_side=3 * 64).shape[0] == 214
        whole = tf.image.resize(decode(encoded), (64, 64), antialias=True).numpy()
        reduced = decode_and_resize(encoded, 1, 64).numpy()
        bicubic = np.asarray(photo.resize((64, 64), Image.Resampling.BICUBIC), np.float32)
        assert np.abs(reduced - whole).mean() < 0.7 * np.abs(bicubic - whole).mean()
