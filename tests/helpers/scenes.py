"""Small pictures, raw sets and prepared sets for the tests of records, build and input pipeline."""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.samples import RawSet, Sample


def gradient(height: int = 24, width: int = 40) -> Image.Image:
    """Every corner is of another colour: no turn of it looks like another."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * y // (height - 1), 255 * x // (width - 1)
    return Image.fromarray(np.stack([red, green, (red + 2 * green) // 3], -1).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(index: int, size: int = 24) -> bytes:
    """A JPEG that differs from that of every other index."""
    return encode(Image.fromarray(np.random.default_rng(index).integers(0, 256, (size, size, 3), np.uint8)))


def raw_set(
    folder: Path,
    count: int = 20,
    name: str = "tiny",
    splits: tuple[str, ...] = ("train",),
    write: bool = True,
) -> RawSet:
    """`count` pictures a split as files in `folder`: i shows class i % 3, and class 2 as difficult if i is odd.

    Without `write` the files are there already.
    """
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        for split in splits:
            for index in range(count):
                (folder / f"{split}{index:03}.jpg").write_bytes(noise(index))

    def samples(split: str):
        for index in range(count):
            present = tuple(sorted({index % 3, 2} if index % 2 else {index % 3}))
            yield Sample(
                id=f"{split}{index:03}",
                image=folder / f"{split}{index:03}.jpg",
                present=present,
                difficult=(2,) if index % 2 and index % 3 != 2 else (),
                unknown=(3,),
                boxes=((0.0, 0.25, 0.5, 1.0),),
                box_labels=(index % 3,),
            )

    return RawSet(
        name, ("a", "b", "c", "d"), {s: lambda s=s: samples(s) for s in splits}, source="made by a test"
    )


def small_shards(monkeypatch, encoded_bytes: int = 4000) -> None:
    """Let a handful of pictures fill a shard."""
    monkeypatch.setattr("pipelines.records.SHARD_BYTES", encoded_bytes)


def build_command(
    folder: Path, *, processes: int, count: int = 20, shard_bytes: int = 4000, seconds_a_picture: float = 0.0
) -> list[str]:
    """A command that builds the pictures of `raw_set(folder / "source", count)` into `folder / "data"`.

    With `seconds_a_picture` it takes its time, so that who wants to kill it doesn't come too late.
    """
    driver = folder / "driver.py"
    driver.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import scenes\nfrom pipelines import records\nfrom pipelines.building.sets import build_set\n"
        "from pipelines.command import load_tensorflow, run_command\n"
        f"records.SHARD_BYTES = {shard_bytes}\n"
        "serialize = records.serialize_record\n"
        "def slowly(*words):\n"
        f"    time.sleep({seconds_a_picture})\n"
        "    return serialize(*words)\n"
        "records.serialize_record = slowly\n"
        "def main():\n"
        "    load_tensorflow()\n"
        f"    raw = scenes.raw_set(Path({str(folder / 'source')!r}), {count}, write=False)\n"
        f"    build_set(raw, Path({str(folder / 'data')!r}), processes={processes})\n"
        "if __name__ == '__main__':\n"
        "    run_command(main)\n"
    )
    return [sys.executable, str(driver)]
