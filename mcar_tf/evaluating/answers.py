"""Finds the image files that `predict` reads. Loads no TensorFlow."""

import collections
import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.words import counted, listed, printable

# HEIC is read if its package is installed; else the error says what to install.
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".jp2",
    ".avif",
    ".heic",
}
FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}  # ignored, like names that begin with a dot

# What was found in an image: `image`, `labels` and `regions`, as `mcar_tf.evaluating.photos.describe` returns them,
# and `error` if the image can't be read.
Answer = dict[str, Any]


def find_images(patterns: Sequence[str], say: Callable[[str], None] = print) -> list[Path]:
    """Find the files that names, folders and globs stand for.

    Each file comes once, in the order given; files of a folder are sorted by name. What operating systems leave in
    folders beside pictures (`._*`, `__MACOSX`, thumbnails) is ignored.

    Args:
        patterns: names, folders or globs.
        say: called with one line about a folder's files that are not pictures.

    Raises:
        FileNotFoundError: one of the patterns stands for no image.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = images_in(path, say)
            if not files:
                raise FileNotFoundError(f"The folder {path} holds no images ({', '.join(sorted(SUFFIXES))}).")
        elif path.is_file():
            files = [path]
        else:
            files = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
            if not files:
                raise FileNotFoundError(f"There is no image {pattern}.")
        found |= dict.fromkeys(files)
    return list(found)


def images_in(folder: Path, say: Callable[[str], None] = print) -> list[Path]:
    """The pictures below a folder, recognized by their suffix, or by their first bytes if they have none."""
    images, others = [], collections.Counter[str]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in JUNK for part in parts):
            continue
        suffix = path.suffix.lower()
        if suffix in SUFFIXES or (not suffix and begins_like_a_picture(path)):
            images.append(path)
        else:
            others[suffix or "without an ending"] += 1
    if images and others:
        kinds = listed(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        are = "is no picture and is" if others.total() == 1 else "are not pictures and are"
        say(printable(f"{folder}: {counted(others.total(), 'file')} {are} left out ({kinds})"))
    return images


def begins_like_a_picture(path: Path) -> bool:
    """Whether a file's first bytes are those of a picture's format."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:  # counted as a picture, so that it is reported as unreadable later
        return True
    return head.startswith(FIRST_BYTES) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))
