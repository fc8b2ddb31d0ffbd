"""Read picture files as training, every command and a viewer see them, or say why a file can't be used.

A record holds a JPEG, PNG or still WebP; such a file is kept byte for byte. Any other picture is converted, without
loss, into a PNG of what a viewer shows, and `see` decides what that is.
"""

import contextlib
import dataclasses
import errno
import functools
import io
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pipelines.scans import has_too_many_scans

if TYPE_CHECKING:
    import tensorflow as tf

MAX_MEGAPIXELS = 50  # larger ones are refused: a few kilobytes can unpack into gigabytes
MOST_READERS = (
    16  # threads: a picture of 50 megapixels takes up to a gigabyte while it is decoded or converted
)
MOST_MEGAPIXELS = 178  # the highest value of that limit: Pillow opens no larger pictures
# Pillow may try no other formats, whatever a file claims to be: its readers of some formats start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")

# What a HEIC file has at bytes 8 to 11.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# What Pillow's readers raise for files that are damaged, in one way or another.
# fmt: off
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
           RuntimeError, AssertionError, MemoryError, struct.error, zlib.error)
# fmt: on
_ORIENTATION = 0x0112  # EXIF's tag
# The value of that tag (EXIF 2.32) -> how to turn the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC = 262  # TIFF's tag


@dataclasses.dataclass(frozen=True)
class Picture:
    """An encoded picture.

    Attributes:
        encoded: JPEG, PNG or WebP.
        height, width: in px, upright.
        orientation: EXIF's, 1 to 8; 1 is upright already.
    """

    encoded: bytes
    height: int
    width: int
    orientation: int


class BadPicture(Exception):  # noqa: N818
    """A picture that must not be used; the text says why and continues a sentence that begins with its name."""


def check_picture(encoded: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """A file's picture as a record holds it, after it was decoded in full by the function that training uses.

    Raises:
        BadPicture: it is not a picture in one of `FORMATS`, is damaged or cut off, or exceeds a limit.
    """
    import tensorflow as tf

    picture = read_picture(encoded, max_megapixels)
    try:
        _graphs().decode(tf.constant(picture.encoded))
    except tf.errors.OpError as error:
        raise BadPicture(describe_damage(error)) from error
    return picture


def read_picture(encoded: bytes, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """A file's picture as a record holds it. Of a JPEG, PNG or WebP only the header is read.

    Raises:
        BadPicture: as in `check_picture`, as far as it shows without decoding.
    """
    import tensorflow as tf

    from pipelines import headers

    if not encoded:
        raise BadPicture("is an empty file")
    if int(_graphs().find_kind(tf.constant(encoded))) in (headers.ANIMATION, headers.OTHER):
        encoded = _turn_into_png(encoded, max_megapixels)
    try:
        height, width, orientation = (int(x) for x in _graphs().read_header(tf.constant(encoded)))
    except tf.errors.OpError as error:
        raise BadPicture(describe_damage(error)) from error
    if not height * width:
        raise BadPicture("is damaged or cut off: it has no size")
    _refuse_many_pixels((width, height), max_megapixels)
    if has_too_many_scans(encoded, height * width):
        raise BadPicture("is a JPEG of too many scans: decoding it would take too long")
    if orientation >= 5:  # it is stored lying on its side
        height, width = width, height
    return Picture(encoded, height, width, orientation)


def read_file(file: Path, max_megapixels: float = MAX_MEGAPIXELS) -> bytes:
    """The bytes of a picture file, whose type and size are checked before it is read.

    Raises:
        BadPicture: it is a pipe, a device, a folder, larger than any picture, or it can't be read.
        FileNotFoundError: it is not there.
    """
    most = int(64e6 + 8e6 * max_megapixels)  # metadata, and 16 bits per channel, uncompressed
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadPicture("is no file but a folder, a pipe or a device")
        if status.st_size <= most:
            return file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:  # a bad sector, missing rights: other files can still be read
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # here no file can
            raise
        raise BadPicture(f"cannot be read: {error.strerror}") from error
    raise BadPicture(f"has {status.st_size / 1e6:,.0f} MB, more than {most / 1e6:,.0f}")


def see_file(file: Path, max_megapixels: float = MAX_MEGAPIXELS) -> npt.NDArray[np.uint8]:
    """The pixels of a picture file as viewers and training see them: upright, (height, width, 3) uint8 RGB.

    Raises:
        BadPicture, FileNotFoundError: as in `read_file` and `check_picture`.
    """
    import tensorflow as tf

    from pipelines.decode import decode, turn_upright

    picture = read_picture(read_file(file, max_megapixels), max_megapixels)
    try:
        pixels = turn_upright(decode(tf.constant(picture.encoded)), tf.constant(picture.orientation))
    except tf.errors.OpError as error:
        raise BadPicture(describe_damage(error)) from error
    seen: npt.NDArray[np.uint8] = pixels.numpy()
    return seen


def see(image: Image.Image) -> Image.Image:
    """What a viewer shows of an opened picture: its first frame upright, transparency on white, in mode RGB.

    Of 16 bits per channel, the upper 8 are shown. If all floats lie in [0, 1], 0 is black and 1 white; if they lie in
    [0, 255], they are levels. All other floats, and 32-bit integers, are stretched: the lowest is black, the highest
    white.
    """
    image.load()
    is_wide = image.mode in ("I", "F") or image.mode.startswith("I;")
    seen = _reduce_to_8_bits(image) if is_wide else image
    if seen.has_transparency_data:
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen.convert("RGBA"))
    turn = _TURNS.get(_exif_orientation(image))
    seen = seen.convert("RGB")
    return seen if turn is None else seen.transpose(turn)


def encode_png(image: Image.Image, compress_level: int = 6) -> bytes:
    """What a viewer shows of an opened picture, as a PNG.

    Raises:
        BadPicture: its pixels, which Pillow reads only now, are damaged or cut off, or its file was closed.
    """
    png = io.BytesIO()
    try:
        see(image).save(png, "PNG", compress_level=compress_level)
    except _DAMAGE as error:
        raise _damaged(error) from error
    return png.getvalue()


def describe_damage(error: "tf.errors.OpError") -> str:
    """Why TensorFlow could not decode a picture, as the text of a `BadPicture`, without details of the graph."""
    reason = re.split(r"\s*(?:\n|\[\[|\[Op:)", error.message.rpartition("}} ")[2], maxsplit=1)[0]
    return f"is damaged or cut off: {reason}"


# --- With Pillow


def _turn_into_png(encoded: bytes, max_megapixels: float) -> bytes:
    with _opened(encoded, max_megapixels) as image:
        return encode_png(image)


@contextlib.contextmanager
def _opened(encoded: bytes, max_megapixels: float) -> Iterator[Image.Image]:
    """Open a file's picture, reading only its header; an error in the `with` block becomes a `BadPicture`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata
            formats = _heif_format() if _brand(encoded) in HEIC_BRANDS else known_formats()
            with Image.open(io.BytesIO(encoded), formats=formats) as image:
                _refuse_many_pixels(image.size, max_megapixels)
                yield image
    except UnidentifiedImageError as error:
        raise BadPicture(_what_it_is(encoded)) from error
    except Image.DecompressionBombError as error:
        raise BadPicture(f"has more than {max_megapixels:g} megapixels") from error
    except _DAMAGE as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> BadPicture:
    return BadPicture(f"is damaged or cut off: {' '.join(str(error).split())[:80]}")


def _refuse_many_pixels(size: tuple[int, int], max_megapixels: float) -> None:
    if size[0] * size[1] > max_megapixels * 1e6:
        raise BadPicture(f"has {size[0]} x {size[1]} pixels, more than {max_megapixels:g} megapixels")


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def _heif_format() -> tuple[str, ...]:
    """Pillow's name for HEIC, which it reads with the package `pillow_heif`; without it, one that never fits."""
    try:
        import pillow_heif
    except ImportError:
        return ("PNG",)  # Pillow needs at least one format, and HEIC is not PNG
    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def _brand(encoded: bytes) -> bytes:
    return encoded[8:12] if encoded[4:8] == b"ftyp" else b""


def _what_it_is(encoded: bytes) -> str:
    """What is wrong with a file that Pillow does not read, and what to do where that is known."""
    brand = _brand(encoded)
    if brand in HEIC_BRANDS and _heif_format() != ("HEIF",):
        return "is HEIC, which needs `pip install 'mcar-tf[images]'`; or convert it to JPEG or PNG"
    if brand in HEIC_BRANDS:
        return "is HEIC, and is damaged or cut off"
    if brand in (b"avif", b"avis"):
        return "is AVIF, which needs a newer Pillow"
    return "is not a picture in a known format"


def _exif_orientation(image: Image.Image) -> Any:
    """The EXIF orientation as Pillow reads it, for pictures that TensorFlow does not decode.

    Pillow turns a TIFF upright as it loads it.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return exif.get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error, OSError):
        return 1


def _reduce_to_8_bits(image: Image.Image) -> Image.Image:
    values: npt.NDArray[Any] = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = (values >> 8).astype(np.uint8)
    else:
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        if values.dtype.kind == "f" and low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if high <= 1 else 255.0
        stretched = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-30)
        levels = np.rint(255 * stretched).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is zero
        levels = 255 - levels
    seen = Image.fromarray(levels)
    if isinstance(image.info.get("transparency"), int):
        seen.putalpha(Image.fromarray(np.uint8(255) * (values != image.info["transparency"])))
    return seen


# --- With TensorFlow


@dataclasses.dataclass(frozen=True)
class _Graphs:
    """The functions that training and serving have in their graphs, compiled to be called on one file at a time."""

    find_kind: Callable[["tf.Tensor"], "tf.Tensor"]
    read_header: Callable[["tf.Tensor"], tuple["tf.Tensor", ...]]
    decode: Callable[["tf.Tensor"], "tf.Tensor"]


@functools.cache
def _graphs() -> _Graphs:
    import tensorflow as tf

    from pipelines import headers
    from pipelines.decode import decode

    def read_header(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return *headers.read_size(encoded), headers.read_orientation(encoded)

    compiled = tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    return _Graphs(
        compiled(headers.find_kind),
        compiled(read_header),
        compiled(lambda encoded: tf.shape(decode(encoded))),
    )


def reading_threads() -> ThreadPoolExecutor:
    """Threads that read pictures: one a core, but no more than memory allows on a large machine."""
    return ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_READERS), thread_name_prefix="reading")
