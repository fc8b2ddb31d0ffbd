import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scenes import encode, gradient

from pipelines.decode import decode, decode_and_resize, resize, turn_upright
from pipelines.headers import read_orientation
from pipelines.pictures import BadPicture, _heif_format, check_picture, read_file, see_file


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
    "webp": encode(gradient(), "WEBP", lossless=True),
}
TURNED_INTO_PNG = {
    "gif": encode(gradient(), "GIF"),
    "animated gif, its first picture": encode(
        gradient(), "GIF", save_all=True, append_images=[gradient().rotate(90)]
    ),
    "bmp": encode(gradient(), "BMP"),
    "tiff": encode(gradient(), "TIFF"),
    "cmyk tiff": encode(gradient().convert("CMYK"), "TIFF"),
    "jpeg 2000": encode(gradient(), "JPEG2000"),
}


@pytest.mark.parametrize("name", GOOD)
def test_training_sees_what_a_person_sees(name):
    encoded = GOOD[name]
    picture = check_picture(encoded)
    assert (picture.height, picture.width, picture.orientation) == (24, 40, 1)
    assert picture.encoded is encoded
    np.testing.assert_array_equal(upright(encoded), as_a_person_sees_it(encoded))


@pytest.mark.parametrize("name", TURNED_INTO_PNG)
def test_other_kinds_are_kept_as_png_without_loss(name):
    picture = check_picture(TURNED_INTO_PNG[name])
    assert picture.encoded.startswith(b"\x89PNG")
    assert (picture.height, picture.width, picture.orientation) == (24, 40, 1)
    np.testing.assert_array_equal(upright(picture.encoded), as_a_person_sees_it(TURNED_INTO_PNG[name]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_other_kinds_are_turned_before_they_are_kept(orientation):
    encoded = encode(gradient(), "TIFF", exif=exif(orientation))
    picture = check_picture(encoded)
    assert picture.orientation == 1
    np.testing.assert_array_equal(upright(picture.encoded), as_a_person_sees_it(encoded))


def seen_of(image: Image.Image, kind: str = "TIFF", **options: object) -> list[int]:
    """The red of the first row."""
    picture = check_picture(encode(image, kind, **options))
    return upright(picture.encoded)[0, :, 0].tolist()


def row(*values: float, dtype: str) -> Image.Image:
    return Image.fromarray(np.array([values], dtype))


def test_of_16_bits_of_grey_the_upper_8_are_seen():
    assert seen_of(row(0, 255, 256, 0x7FFF, 0xFFFF, dtype="uint16")) == [0, 0, 1, 127, 255]
    assert seen_of(row(0, 255, 256, 0x7FFF, 0xFFFF, dtype="uint16"), "PNG") == [0, 0, 1, 127, 255]


def test_floats_are_fractions_or_levels_or_stretched():
    assert seen_of(row(0, 0.2, 1, dtype="float32")) == [0, 51, 255]
    assert seen_of(row(0, 51, 128, dtype="float32")) == [0, 51, 128]
    assert seen_of(row(-100, 0, 400, dtype="float32")) == [0, 51, 255]  # 100 of 500 is a fifth
    assert seen_of(row(1000, 1100, 1500, dtype="int32")) == [0, 51, 255]
    assert seen_of(row(np.nan, 0, 1, np.inf, dtype="float32")) == [0, 0, 255, 255]
    assert seen_of(row(np.nan, np.nan, dtype="float32")) == [0, 0]
    assert seen_of(row(7000, 7000, dtype="float32")) == [0, 0]


def test_transparent_parts_of_any_kind_are_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 255, 0, 51  # black, nothing, a fifth of black on white: 255 * 0.8
    for kind, options in (("TIFF", {}), ("WEBP", {"lossless": True, "exact": True}), ("PNG", {})):
        assert seen_of(Image.fromarray(rgba), kind, **options) == [0, 255, 204]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert seen_of(palette, "GIF", transparency=1) == [255, 255]


def test_a_colour_that_stands_for_transparent_is_white():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (40, 50, 60))
    assert seen_of(image, "PNG", transparency=(10, 20, 30)) == [255, 40]
    assert seen_of(image.convert("L"), "PNG", transparency=int(image.convert("L").getpixel((0, 0))))[0] == 255


@pytest.mark.parametrize("name", [*GOOD, *TURNED_INTO_PNG])
def test_what_is_drawn_on_is_what_training_sees(name, tmp_path):
    encoded = (GOOD | TURNED_INTO_PNG)[name]
    (tmp_path / "file").write_bytes(encoded)
    np.testing.assert_array_equal(see_file(tmp_path / "file"), upright(check_picture(encoded).encoded))


def test_a_file_is_asked_what_it_is_before_it_is_read(tmp_path):
    huge = tmp_path / "huge.png"
    with huge.open("wb") as stream:
        stream.truncate(30 * 10**9)
    with pytest.raises(BadPicture, match="has 30,000 MB, more than 464"):
        read_file(huge)
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(BadPicture, match="is no file but a folder, a pipe or a device"):
            read_file(path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such thing here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadPicture, match="a pipe or a device"):
        read_file(tmp_path / "pipe.jpg")


def test_no_program_is_started_for_a_picture(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    for name in ("a program for a printer", "ppm, which Pillow knows"):
        with pytest.raises(BadPicture):
            check_picture(BAD[name][0])


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


def too_large_gif() -> bytes:
    gif = encode(gradient(), "GIF")
    return gif[:6] + b"\xff" * 4 + gif[10:]


def scans(count: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    *before, last = encode(gradient(), progressive=True).removesuffix(b"\xff\xd9").split(b"\xff\xda")
    return b"\xff\xda".join([*before, *[last] * count]) + b"\xff\xd9"


JPEG = encode(gradient(240, 320))
PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)), "PNG")
BAD = {
    "empty": (b"", "empty file"),
    "text": (b"no picture at all " * 20, "not a picture"),
    "html, as a web server answers": (b"<html><body>404 Not Found</body></html>", "not a picture"),
    "a program for a printer": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 24\nshowpage\n", "not a picture"),
    "ppm, which Pillow knows": (encode(gradient(), "PPM"), "not a picture in a known format"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(100), "is HEIC, "),
    "half a gif": (encode(gradient(), "GIF")[:-200], "damaged or cut off"),
    "half a webp": (encode(gradient(), "WEBP")[:-100], "damaged or cut off"),
    "tiff with a cut directory": (encode(gradient(), "TIFF")[:-40], "damaged or cut off|not a picture"),
    "gif that promises too much": (too_large_gif(), "more than 50 megapixels"),
    "png that promises more than Pillow opens": (png(b"", 8, 2, 30_000, 30_000), "30000 x 30000 pixels"),
    "bmp that promises more than Pillow opens": (
        encode(gradient(), "BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + encode(gradient(), "BMP")[26:],
        "more than 50 megapixels",
    ),
    "jpeg of 400 scans": (scans(400), "too many scans"),
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


@pytest.fixture
def fresh_heif_format():
    _heif_format.cache_clear()
    yield
    _heif_format.cache_clear()


def test_heic_is_named_with_the_package_that_reads_it(monkeypatch, fresh_heif_format):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadPicture, match=r"needs `pip install 'mcar-tf\[images\]'`; or convert it"):
        check_picture(b"\0\0\0\x18ftypheic" + bytes(100))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_seen_upright_and_kept_as_png(fresh_heif_format, orientation):
    pytest.importorskip("pillow_heif").register_heif_opener(thumbnails=False)
    scene = Image.new("RGB", (64, 32), "white")
    scene.paste("red", (0, 0, 16, 16))  # a corner that tells how it was turned
    encoded = encode(scene, "HEIF", quality=-1, chroma=444, exif=exif(orientation))
    picture = check_picture(encoded)
    assert picture.encoded.startswith(b"\x89PNG")
    # Pillow's own turning of the same picture with the same tag, as PNG, is the oracle; HEVC rounds colours.
    expected = as_a_person_sees_it(encode(scene, "PNG", exif=exif(orientation))).astype(int)
    assert (picture.height, picture.width) == expected.shape[:2]
    assert np.abs(upright(picture.encoded).astype(int) - expected).max() <= 4
