"""Strings of bytes that are no picture, nearly one, or an odd one, for whatever opens pictures."""

import io

import numpy as np
from PIL import Image


def file_of(pixels, format="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


def too_large():
    """A PNG of 6 kB with 50.4 megapixels, all of them there."""
    file = io.BytesIO()
    Image.new("1", (8000, 6300)).save(file, "PNG")
    return file.getvalue()


def hostile_bytes(count):
    """Strings that are no picture, nearly one, or an odd one; the same ones each time."""
    rng = np.random.default_rng(0)

    def noise(height, width):
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    whole = [file_of(noise(60, 80)), file_of(noise(60, 80), "PNG"), file_of(noise(60, 80), progressive=True)]
    exif = Image.Exif()
    exif[0x0112] = 6
    whole.append(file_of(noise(60, 80), exif=exif))
    odd = [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        file_of(noise(1, 1)),
        file_of(noise(1, 1), "PNG"),
        file_of(noise(20_000, 1)),
        file_of(noise(1, 20_000)),
        file_of(noise(20_000, 1), "PNG"),
        file_of(noise(30, 40), mode="CMYK"),
        file_of(noise(30, 40), mode="L"),
        file_of(noise(30, 40), "PNG", mode="1"),
        file_of(noise(30, 40), "PNG", mode="P"),
        file_of(noise(30, 40), "PNG", mode="RGBA"),
        file_of(noise(30, 40), "GIF"),
        file_of(noise(30, 40), "BMP"),
        file_of(noise(30, 40), "WEBP"),
        too_large(),
        # A header that promises more pixels than there is memory for, and no pixels.
        whole[1][:16] + (60_000).to_bytes(4, "big") * 2 + whole[1][24:],
    ]
    yield from odd
    for _ in range(count - len(odd)):
        kind = rng.integers(4)
        data = bytearray(whole[rng.integers(len(whole))])
        if kind == 0:
            data = rng.bytes(rng.integers(1, 3000))
        elif kind == 1:
            data = data[: rng.integers(len(data))]
        else:
            # The head decides how the rest is read: every other time only there.
            end = len(data) if kind == 2 else 200
            for place in rng.integers(0, end, rng.integers(1, 20)):
                data[place] ^= 1 << rng.integers(8)
        yield bytes(data)
