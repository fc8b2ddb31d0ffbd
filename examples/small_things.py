"""Make a set of small things in large pictures: scenes that show one or two of a prepared set's photographs, small.

    python examples/small_things.py --dataset voc2012 --splits devkit_train devkit_val --out small
    python -m pipelines.build --dataset table --source small/labels.csv --name small

Each photograph of a split has a scene. In half of the scenes there is a second one, drawn at random from the same
split. They lie in random places over a third that is blurred beyond recognition, and do not touch. A scene's classes
are those of the sharp photographs. The same set, options and version of Pillow give the same scenes.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import trange

from pipelines.input_pipeline import read_samples
from pipelines.manifest import load_manifest
from pipelines.pictures import see
from pipelines.samples import Sample

SPLITS = ("train", "test")  # what the two splits named are called in the new set


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make a set of small things in large pictures.")
    parser.add_argument(
        "--dataset", required=True, help="name of the prepared set that gives the photographs"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where it lies (default: data)")
    parser.add_argument(
        "--splits", nargs=2, default=SPLITS, help="to learn from, and to test on (default: train test)"
    )
    parser.add_argument("--side", type=int, default=512, help="of a scene, in px (default: 512)")
    parser.add_argument(
        "--photo-side",
        type=int,
        nargs=2,
        default=(80, 128),
        metavar=("LEAST", "MOST"),
        help="longer side of a photograph in a scene, in px (default: 80 128)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="new folder: the scenes and labels.csv")
    options = parser.parse_args(argv)
    least, most = options.photo_side
    if not 1 <= least <= most <= options.side // 3:
        parser.error(f"--photo-side must be two sizes from 1 to {options.side // 3}, a third of the scene's")

    manifest = load_manifest(options.data_dir, options.dataset)
    if unknown := set(options.splits) - set(manifest.splits):
        parser.error(f"{options.dataset} has no split {min(unknown)}; it has {', '.join(manifest.splits)}")
    if options.out.exists():
        parser.error(f"{options.out} exists: give a new folder with --out")
    options.out.mkdir(parents=True)
    with (options.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", "labels", "split"))
        for number, (name, split) in enumerate(zip(SPLITS, options.splits, strict=True)):
            samples = [sample for sample, _ in read_samples(manifest.splits[split].files)]
            for index in trange(len(samples), desc=name, unit=" scenes", leave=False):
                rng = np.random.default_rng([options.seed, number, index])
                scene, present = make_scene(rng, samples, index, options.side, (least, most))
                scene.save(options.out / f"{name}-{index:05d}.jpg", quality=90)
                labels = ";".join(manifest.classes[label] for label in present)
                table.writerow((f"{name}-{index:05d}.jpg", labels, name))
            print(f"{name}: {len(samples):,} scenes")


def make_scene(
    rng: np.random.Generator, samples: Sequence[Sample], index: int, side: int, photo_side: tuple[int, int]
) -> tuple[Image.Image, list[int]]:
    """A scene of `side` px that shows photograph `index`, perhaps a second one, and the classes that it shows."""
    shown = [index, *rng.choice(len(samples), size=rng.integers(2))]
    blurred = open_photo(samples[rng.integers(len(samples))]).resize((6, 6), Image.Resampling.BOX)
    scene = blurred.resize((side, side), Image.Resampling.BICUBIC)
    taken = np.zeros((side, side), bool)
    for which in shown:
        photo = open_photo(samples[which])
        scale = rng.integers(photo_side[0], photo_side[1] + 1) / max(photo.size)
        width, height = (max(1, round(scale * length)) for length in photo.size)
        while True:  # ends: two photographs of at most a third of the side leave most places free
            left, top = rng.integers(side - width + 1), rng.integers(side - height + 1)
            if not taken[top : top + height, left : left + width].any():
                break
        taken[top : top + height, left : left + width] = True
        scene.paste(photo.resize((width, height), Image.Resampling.LANCZOS), (int(left), int(top)))
    return scene, sorted({label for which in shown for label in samples[which].present})


def open_photo(sample: Sample) -> Image.Image:
    with Image.open(io.BytesIO(sample.image)) as image:
        return see(image)


if __name__ == "__main__":
    main()
