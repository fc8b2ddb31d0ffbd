"""Draw what a model's first look saw and what its second look saw: a run folder in, one picture out.

    python -m mcar_tf.fit
    python examples/two_looks.py runs/digits-tiny_resnet --image-size 128 --glance-size 64 --out looks.png

Each picture has two rows. Above: its pixels as the first look saw them, and the same pixels of each region, with the
class that pointed there and its probability after the first look. Below: the whole picture, and the regions cut from
it, as the second look saw them, with that class's probability there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from mcar_tf import load_run
from mcar_tf.models.crop import crop_and_resize
from mcar_tf.reporting.drawing import draw_regions, make_panel
from pipelines.input_pipeline import make_eval_dataset
from pipelines.manifest import load_manifest

TILE = 180  # px


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw what a model's first and second look saw.")
    parser.add_argument("run", type=Path, help="run folder of a model that looks twice")
    for name in ("image", "glance", "local"):
        parser.add_argument(f"--{name}-size", type=int, help="in px (default: the run's)")
    parser.add_argument("--split", default="test", help="split of the run's set (default: test)")
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1], help="which of its pictures, from 0")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    options = parser.parse_args(argv)

    run = load_run(
        options.run,
        image_size=options.image_size,
        glance_size=options.glance_size,
        local_size=options.local_size,
    )
    if not run.model.top_n:
        parser.error(f"{options.run} looks once: it was trained with --top-n 0")
    manifest = load_manifest(run.config.data_dir, run.config.dataset)
    batch = max(options.rows) + 1
    pictures = make_eval_dataset(
        manifest.splits[options.split].files,
        num_classes=len(run.classes),
        image_size=run.model.image_size,
        batch_size=batch,
    )
    images = tf.gather(next(iter(pictures))["image"], options.rows)
    sheet = draw_looks(run.model, images, run.classes)
    Image.fromarray(sheet).save(options.out, quality=90)


def draw_looks(model: tf.keras.Model, images: tf.Tensor, classes: Sequence[str]) -> np.ndarray:
    """Two rows for each picture: (2 * B * (TILE + caption), (1 + N) * TILE, 3) uint8.

    Args:
        model: an `MCAR` with N regions.
        images: (B, S, S, 3) in [0, 255].
        classes: C names.
    """
    outputs = {name: value.numpy() for name, value in model(images).items()}
    factor = model.image_size // model.glance_size
    glances = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    tiles, captions = [], []
    for b, names in enumerate(outputs["box_classes"]):
        boxes = outputs["boxes"][b]
        first = [outputs["global_probs"][b, c] for c in names]
        for pixels, side, what, probs in (
            (glances[b], model.local_size // factor, "first look", first),
            (images[b], model.local_size, "second look", outputs["box_probs"][b]),
        ):
            regions = crop_and_resize(pixels[tf.newaxis], boxes[np.newaxis], side)[0]
            tiles += [draw_regions(enlarge(pixels), boxes, [""] * len(boxes)), *map(enlarge, regions)]
            captions.append(f"{what}, {pixels.shape[0]} px")
            captions += [f"{classes[c]}: {prob:.2f}" for c, prob in zip(names, probs, strict=True)]
    return make_panel(tiles, captions, columns=1 + model.top_n, tile=TILE)


def enlarge(pixels: tf.Tensor) -> np.ndarray:
    """A square of pixels, each as a larger square, so that one can count them."""
    levels = np.round(np.asarray(pixels)).clip(0, 255).astype(np.uint8)
    times = -(-2 * TILE // len(levels))
    return levels.repeat(times, axis=0).repeat(times, axis=1)


if __name__ == "__main__":
    main()
