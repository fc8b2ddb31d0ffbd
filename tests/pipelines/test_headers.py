"""What a picture's headers say is what Pillow finds there, for files as many writers make them and as none should."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scenes import encode, gradient

from pipelines import headers
from pipelines.decode import decode, turn_upright
from pipelines.pictures import BadPicture, check_picture

SIGNATURE = tf.function(input_signature=[tf.TensorSpec([], tf.string)])
read_orientation = SIGNATURE(headers.read_orientation)
read_size = SIGNATURE(headers.read_size)
STILL = {
    "JPEG": encode(gradient()),
    "PNG": encode(gradient(), "PNG"),
    "WEBP": encode(gradient(), "WEBP", lossless=True),
}
MARK = b"Exif\0\0"


def tiff(entries, order="<", directory=8):
    """A TIFF file of one directory. entries: (tag, type, count, the four bytes of value) each."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", directory)
    written = [struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries]
    return head + bytes(directory - 8) + struct.pack(order + "H", len(entries)) + b"".join(written) + bytes(4)


def with_orientation(orientation, order="<", form="H", **layout):
    kind = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8}[form]
    value = struct.pack(order + form, orientation).ljust(4, b"\0")
    maker = 0x0100, 4, 1, bytes(4)
    return tiff([maker, (0x0112, kind, 1, value)], order, **layout)


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


def jpeg(exif, before=b"", behind=b"", is_last=False, piece=60_000):
    """EXIF in as many segments as it needs, behind those of `before`; or behind the picture, where none belongs."""
    pieces = [exif[i : i + piece] for i in range(0, len(exif), piece)] or [b""]
    segments = b"".join(segment(0xE1, MARK + part) for part in pieces)
    start, picture = STILL["JPEG"][:2], STILL["JPEG"][2:]
    return (start + before + picture + segments if is_last else start + before + segments + picture) + behind


def png(exif, before=b"", behind=b"", is_last=False):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    place = len(STILL["PNG"]) - 12 if is_last else 33  # before the last chunk, or behind the first
    comment = chunk(b"tEXt", b"Comment\0" + before[:1000].replace(b"\0", b" "))
    return STILL["PNG"][:place] + comment + chunk(b"eXIf", exif) + STILL["PNG"][place:] + behind


def webp(exif, before=b"", behind=b"", is_last=True):
    def chunk(name, data):
        return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    picture, exif = STILL["WEBP"][12:], chunk(b"EXIF", exif)
    sides = struct.pack("<I", 39)[:3] + struct.pack("<I", 23)[:3]
    header = chunk(b"VP8X", b"\x08\0\0\0" + sides)
    content = b"WEBP" + header + (picture + exif if is_last else exif + picture)
    return b"RIFF" + struct.pack("<I", len(content)) + content


WRITERS = {"JPEG": jpeg, "PNG": png, "WEBP": webp}


def pillows(encoded):
    """Pillow's orientation by EXIF; 1 where it finds none that is one, or fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                found = image.getexif().get(0x0112, 1)
        except (SyntaxError, ValueError, struct.error, OSError):
            return 1
    return next((known for known in range(1, 9) if known == found), 1)


def assert_as_pillow(encoded):
    orientation = pillows(encoded)
    assert int(read_orientation(tf.constant(encoded))) == orientation
    picture = check_picture(encoded)
    assert picture.encoded == encoded
    assert picture.orientation == orientation
    seen = turn_upright(decode(tf.constant(encoded)), picture.orientation).numpy()
    assert seen.shape[:2] == (picture.height, picture.width)
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(seen, np.asarray(upright))


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", WRITERS)
def test_every_orientation_is_read_from_every_format(kind, orientation, order, is_last):
    encoded = WRITERS[kind](with_orientation(orientation, order), is_last=is_last)
    # Behind its picture a JPEG has no EXIF.
    expected = 1 if (kind, is_last) == ("JPEG", True) else orientation
    assert pillows(encoded) == expected
    assert_as_pillow(encoded)


@st.composite
def exifs(draw):
    """EXIF with the orientation in any form, several times or never, cut off, changed, or noise."""
    order = draw(st.sampled_from("<>"))
    entries = []
    for _ in range(draw(st.integers(0, 4))):
        tag = draw(st.sampled_from([0x010F + len(entries), 0x0112, 0x0112]))
        kind, form = draw(
            st.sampled_from(
                [
                    (3, "H"),
                    (3, "H"),
                    (4, "I"),
                    (1, "B"),
                    (2, "B"),
                    (6, "b"),
                    (7, "B"),
                    (8, "h"),
                    (11, "f"),
                    (99, "H"),
                ]
            )
        )
        number = draw(st.sampled_from([*range(10), 20, 120]))  # or where several values lie, or would
        value = struct.pack(order + form, number).ljust(4, b"\0")
        count = draw(st.sampled_from([1, 1, 1, 1, 0, 2, 3, 2**31]))
        entries.append((tag, kind, count, value))
    content = tiff(entries, order, directory=draw(st.sampled_from([8, 8, 9, 200])))
    content = draw(st.sampled_from([b"", b"", MARK, 2 * MARK])) + content
    if draw(st.integers(0, 5)) == 0:
        content = content[: draw(st.integers(0, len(content)))]
    if draw(st.integers(0, 5)) == 0 and content:
        place = draw(st.integers(0, len(content) - 1))
        content = content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
    return content


BEFORE = st.lists(
    st.sampled_from(
        [
            segment(0xFE, b"a comment of " + MARK + with_orientation(6)),
            segment(0xED, MARK + with_orientation(8)),
            segment(0xE2, bytes(65_000)) * 3,
            b"\xff\xff\xff",
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
            segment(0xE1, MARK + b"short"),
        ]
    ),
    max_size=3,
).map(b"".join)


@pytest.mark.parametrize("examples", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_orientation_is_pillows_whatever_the_exif(examples):
    @settings(max_examples=examples, deadline=None)
    @given(st.sampled_from(sorted(WRITERS)), exifs(), BEFORE, st.booleans())
    def check(kind, exif, before, is_last):
        encoded = WRITERS[kind](exif, before=before, is_last=is_last)
        assert int(read_orientation(tf.constant(encoded))) == pillows(encoded)

    check()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*STILL, "TURNED"]),
    st.lists(st.tuples(st.integers(0, 150), st.binary(max_size=3))),
    st.data(),
)
def test_no_bytes_make_the_reader_fail(kind, changes, data):
    encoded = bytearray(STILL.get(kind) or jpeg(with_orientation(6)))
    for place, new in changes:
        encoded[place : place + len(new)] = new
    encoded = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    assert int(read_orientation(tf.constant(encoded))) in range(1, 9)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=64),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X"]),
)
def test_noise_is_upright_or_read_but_never_an_error(noise, start):
    assert int(read_orientation(tf.constant(start + noise))) in range(1, 9)


def test_exif_beyond_128_kilobytes_is_found():
    far = jpeg(with_orientation(6), before=segment(0xE2, bytes(65_000)) * 4)
    assert far.index(MARK) > 2**17
    long = jpeg(with_orientation(6, directory=150_000))
    for encoded in (far, long, png(with_orientation(6, directory=150_000), is_last=True)):
        assert pillows(encoded) == 6
        assert_as_pillow(encoded)


def test_a_comment_that_contains_exifs_mark_is_none():
    comment = segment(0xFE, MARK + with_orientation(6))
    encoded = STILL["JPEG"][:2] + comment + STILL["JPEG"][2:]
    assert_as_pillow(encoded)
    assert check_picture(encoded).orientation == 1


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("length", range(15))
def test_exif_of_a_few_bytes_is_no_orientation(kind, length):
    assert check_picture(WRITERS[kind](with_orientation(6)[:length])).orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_with_a_second_picture_keeps_its_bytes_and_its_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(gradient(), "MPO", save_all=True, append_images=[gradient()], exif=exif)
    assert Image.open(io.BytesIO(encoded)).format == "MPO"
    assert pillows(encoded) == orientation
    assert_as_pillow(encoded)


def test_no_file_makes_the_reader_go_on_and_on():
    # A million segments of no content: the reader stops, and says that there is no orientation.
    encoded = STILL["JPEG"][:2] + b"\xff\xe2\0\2" * 1_000_000 + jpeg(with_orientation(6))[2:]
    assert int(read_orientation(tf.constant(encoded))) == 1
    many = png(with_orientation(6), is_last=True)
    many = many[:33] + (bytes(4) + b"tEXt" + bytes(4)) * 1_000_000 + many[33:]
    assert int(read_orientation(tf.constant(many))) == 1


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"exif": with_orientation(1)}])
def test_the_size_is_read_without_decoding(options):
    for kind in STILL:
        size = read_size(tf.constant(encode(gradient(), kind, **({} if kind == "PNG" else options))))
        assert [int(side) for side in size] == [24, 40]
    for kind in ("RGBA", "L"):
        size = read_size(tf.constant(encode(gradient().convert(kind), "WEBP", **options)))
        assert [int(side) for side in size] == [24, 40]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animated_webp_is_not_given_to_the_decoder(mode):
    pictures = [gradient().convert(mode), gradient().rotate(90).convert(mode)]
    encoded = encode(pictures[0], "WEBP", lossless=True, save_all=True, append_images=pictures[1:])
    assert int(headers.find_kind(tf.constant(encoded))) == headers.ANIMATION
    with pytest.raises(tf.errors.InvalidArgumentError, match="neither JPEG nor PNG nor still WebP"):
        decode(tf.constant(encoded))
    # A record holds its first picture.
    picture = check_picture(encoded)
    np.testing.assert_array_equal(decode(tf.constant(picture.encoded)), np.asarray(gradient()))


def test_a_webp_whose_header_hides_that_it_is_animated_is_refused():
    pictures = [gradient(), gradient().rotate(90)]
    encoded = encode(pictures[0], "WEBP", lossless=True, save_all=True, append_images=pictures[1:])
    hidden = encoded[:20] + bytes([encoded[20] & ~2]) + encoded[21:]
    with pytest.raises(BadPicture, match="damaged"):
        check_picture(hidden)
