"""The bytes of a file in; proof that it is a picture which training will see as a person does, or why not."""

import dataclasses
import io
import warnings

MAX_MEGAPIXELS = 50  # larger ones are refused: a few kilobytes can unpack into gigabytes
MOST_MEGAPIXELS = 178  # what that limit can be raised to: Pillow opens no larger ones
FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG"}  # Pillow's names; MPO is a JPEG with more behind it


@dataclasses.dataclass(frozen=True)
class Picture:
    """An encoded picture that was found to decode.

    Attributes:
        encoded: the original file's bytes, JPEG or PNG.
        height, width: in px, upright.
        orientation: EXIF's, 1 to 8; 1 is upright already.
    """

    encoded: bytes
    height: int
    width: int
    orientation: int


class BadPicture(Exception):  # noqa: N818
    """A picture that training must not see; the text says why."""


def check_picture(encoded: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """Decode a picture in full, by the very function that training decodes it with.

    Whatever its name was, and whether it is grey, has a palette, CMYK, 16 bits or transparent parts.

    Raises:
        BadPicture: it is no JPEG or PNG, is damaged or cut off, or has more pixels than allowed.
    """
    import tensorflow as tf

    from pipelines.decode import decode

    orientation = _read_header(encoded, max_megapixels)
    try:
        height, width, _ = decode(tf.constant(encoded)).shape
    except tf.errors.InvalidArgumentError as error:
        why = error.message.rpartition("}} ")[2].partition(" [Op:")[0]
        raise BadPicture(f"is damaged or cut off: {why}") from error
    if orientation >= 5:  # it is stored lying on its side
        height, width = width, height
    return Picture(encoded, height, width, orientation)


def _read_header(encoded: bytes, max_megapixels: float) -> int:
    """See that the file is of a kind and size that we decode; its EXIF orientation."""
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise BadPicture("is an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about large pictures and odd EXIF: judged here
            with Image.open(io.BytesIO(encoded)) as image:
                kind, size = image.format, image.size
                # One colour of a PNG without a palette may stand for transparent; TensorFlow shows that colour.
                keyed = kind == "PNG" and image.mode != "P" and "transparency" in image.info
                exif = Image.Exif()
                exif.load(image.info.get("exif", b""))  # not `getexif()`, which decodes a PNG for it
                orientation = exif.get(0x0112, 1)
    except UnidentifiedImageError as error:
        raise BadPicture("is no picture of a kind that we know") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"has more than {max_megapixels:g} megapixels") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadPicture(f"is damaged or cut off: {error}") from error
    if kind not in FORMATS:
        raise BadPicture(f"is {kind}: only JPEG and PNG are read, convert it")
    if keyed:
        raise BadPicture("is PNG with a colour that stands for transparent: give it an alpha channel")
    if size[0] * size[1] > max_megapixels * 1e6:
        raise BadPicture(f"has {size[0]} x {size[1]} pixels, more than {max_megapixels:g} megapixels")
    # What EXIF does not define is shown as it is stored, by viewers too.
    return orientation if orientation in range(1, 9) else 1
