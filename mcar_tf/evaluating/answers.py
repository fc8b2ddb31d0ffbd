"""Finds the image files that `predict` reads, and writes the file with its answers. Loads no TensorFlow."""

import collections
import csv
import glob
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.files import written_whole
from pipelines.words import csv_text, listed, printable

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
CSV_COLUMNS = ("image", "class", "prob", "global_prob", "local_prob", "ymin", "xmin", "ymax", "xmax", "error")
SHOWN = 20  # how many predictions are also printed

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
        say(printable(f"{folder}: {others.total()} files are not pictures and are left out ({kinds})"))
    return images


def begins_like_a_picture(path: Path) -> bool:
    """Whether a file's first bytes are those of a picture's format."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:  # counted as a picture, so that it is reported as unreadable later
        return True
    return head.startswith(FIRST_BYTES) or (head.startswith(b"RIFF") and head.endswith(b"WEBP"))


def write_answers(
    path: Path, predictions: Iterable[Answer], form: Literal["jsonl", "csv"], all_classes: bool = False
) -> tuple[list[Answer], int]:
    """Write each prediction as it comes.

    The file is named `partial-...-NAME` until all predictions are written, and then `path`. If writing is
    interrupted, the partial file stays.

    jsonl: one object per line. csv: one row per label, with its region if it has one; an image that has no labels or
    can't be read gets a row without a class. With `all_classes`, a last column says which classes are present.

    Returns:
        The first `SHOWN` predictions for readable images, and the number of readable images.
    """
    first: list[Answer] = []
    count = 0
    # Bytes of a file's name that are not valid text are written as JSON would escape them.
    with (
        written_whole(path, keep_partial=True) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        if form == "csv":
            rows.writerow((*CSV_COLUMNS, "present") if all_classes else CSV_COLUMNS)
        for prediction in predictions:
            if form == "csv":
                rows.writerows(to_rows(prediction))
            else:
                file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            if "error" not in prediction:
                count += 1
                if len(first) < SHOWN:
                    first.append(prediction)
    return first, count


def to_rows(prediction: Answer) -> Iterator[list[Any]]:
    """An image's rows of the CSV file, with the columns `CSV_COLUMNS`."""
    boxes = {region["class"]: region["box"] for region in prediction["regions"]}
    for label in prediction["labels"] or [{}]:
        numbers = [label.get(name, "") for name in ("prob", "global_prob", "local_prob")]
        texts = [csv_text(text) for text in (prediction["image"], label.get("class", ""))]
        present = [int(label["present"])] if "present" in label else []
        box = boxes.get(label.get("class"), ["", "", "", ""])
        yield [*texts, *numbers, *box, csv_text(prediction.get("error", "")), *present]
