"""One photograph in every format that is read, through build, training, `predict --draw` and the report.

What each step sees is what a viewer shows: the photograph, or its greys. `PAGE` in the environment names a file for
a page of all that was drawn, to be looked at.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_image

from mcar_tf import evaluate, fit, predict, report
from pipelines import build
from pipelines.decode import decode
from pipelines.manifest import load_manifest
from pipelines.pictures import see_file
from pipelines.records import parse_sample

SIDES = (160, 104)  # width and height in px
KEY = (255, 0, 255)  # the colour that stands for transparency


def photograph():
    return Image.fromarray(load_sample_image("china.jpg")).resize(SIDES, Image.Resampling.LANCZOS)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_a_hole(image, fill):
    """The photograph with a rectangle of another colour."""
    pixels = np.array(image)
    pixels[20:60, 30:90] = fill
    return pixels


def png_of_16_bits(pixels):
    # The lower 8 bits differ from the upper ones.
    return tf.io.encode_png(pixels.astype(np.uint16) * 256 + 77).numpy()


def formats():
    """File name -> (its bytes, what a viewer shows, the largest mean difference in levels)."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    image = photograph()
    pixels, grey = np.array(image), image.convert("L")
    greys = np.array(grey)
    shown_grey = np.repeat(greys[..., None], 3, axis=-1)
    other = [image.rotate(180)]  # the second picture of an animation
    white, keyed = with_a_hole(image, 255), with_a_hole(image, KEY)
    # Colour profiles are ignored: the numbers are taken as they are.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return {
        "a.jpg": (saved(image, "JPEG", quality=95, subsampling=0), pixels, 3),
        "b.png": (saved(image, "PNG"), pixels, 0),
        "c.webp": (saved(image, "WEBP", lossless=True), pixels, 0),
        "d.bmp": (saved(image, "BMP"), pixels, 0),
        "e.gif": (saved(image, "GIF", save_all=True, append_images=other), pixels, 15),
        "f.tif": (saved(image, "TIFF"), pixels, 0),
        "g-16-bits.tif": (saved(Image.fromarray(greys.astype(np.uint16) * 256 + 77), "TIFF"), shown_grey, 0),
        "h-float.tif": (saved(Image.fromarray(greys.astype(np.float32) / 255), "TIFF"), shown_grey, 0.5),
        "i.heic": (saved(image, "HEIF", quality=95), pixels, 5),
        "j.avif": (saved(image, "AVIF", quality=95), pixels, 5),
        "k.jp2": (saved(image, "JPEG2000"), pixels, 0),
        "l-one-colour.png": (saved(Image.fromarray(keyed), "PNG", transparency=KEY), white, 0),
        "m-16-bits.png": (png_of_16_bits(pixels), pixels, 0),
        "n-profile.jpg": (saved(image, "JPEG", quality=95, subsampling=0, icc_profile=profile), pixels, 3),
        "o-animated.webp": (
            saved(image, "WEBP", save_all=True, append_images=other, lossless=True),
            pixels,
            0,
        ),
    }


@pytest.mark.slow
def test_every_format_is_seen_alike_by_all_commands(tmp_path):
    pytest.importorskip("pillow_heif")
    made, folder, run = formats(), tmp_path / "photos", tmp_path / "run"
    lines = ["file,labels,split"]
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for place, (name, (encoded, _, _)) in enumerate(made.items()):
            (folder / split / name).write_bytes(encoded)
            lines.append(f"{split}/{name},{('roof', 'sky;roof')[place % 2]},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))

    data = ["--data-dir", str(tmp_path / "data")]
    words = ["--dataset", "table", "--name", "formats", "--source", str(folder / "labels.csv"), *data]
    build.main([*words, "--processes", "1"])
    manifest = load_manifest(tmp_path / "data", "formats")
    for split in ("train", "test"):
        assert (manifest.splits[split].examples, manifest.splits[split].skipped) == (len(made), ())
    records = tf.data.TFRecordDataset([str(file) for file in manifest.splits["test"].files])
    parsed = map(parse_sample, records.as_numpy_iterator())
    stored = {sample.id: picture.encoded for sample, picture in parsed}
    for name, (encoded, expected, most) in made.items():
        encoded_in_record = stored[f"test/{name}"]
        if name.endswith((".jpg", "b.png", "c.webp", "16-bits.png", "one-colour.png")):
            assert encoded_in_record == encoded, name
        else:
            assert encoded_in_record.startswith(b"\x89PNG"), name
        found = decode(tf.constant(encoded_in_record)).numpy()
        np.testing.assert_array_equal(see_file(folder / "test" / name), found, err_msg=name)
        assert np.abs(found.astype(float) - expected).mean() <= most, name

    tiny = "--backbone tiny_resnet --weights none --image-size 32 --epochs 1 --batch-size 5 --top-n 1"
    fit.main(["--dataset", "formats", *data, "--out-dir", str(run), *tiny.split()])
    evaluate.main(["--run", str(run), *data])
    predict.main(["--run", str(run), "--images", str(folder / "test"), "--draw", "--threshold", "0.01"])
    rows = [json.loads(line) for line in (run / "predictions" / "predictions.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == list(made)
    of_png = {label["class"]: label["prob"] for label in rows[1]["labels"]}
    for row, (_, expected, most) in zip(rows, made.values(), strict=True):
        if most == 0 and np.array_equal(expected, made["b.png"][1]):
            assert {label["class"]: label["prob"] for label in row["labels"]} == pytest.approx(
                of_png, abs=1e-5
            )
    drawn = sorted((run / "predictions").glob("*.png"))
    assert len(drawn) == len(made)
    report.main(["--run", str(run), "--pictures", str(len(made)), *data])
    assert (run / "report.html").read_text().count("<img") >= 1
    if page := os.environ.get("PAGE"):
        _write_page(Path(page), drawn)
        Path(page).with_suffix(".html").write_text((run / "report.html").read_text())


def _write_page(path, drawn):
    sheet = Image.new("RGB", (4 * 340, 4 * 280), "grey")
    for place, file in enumerate(drawn):
        with Image.open(file) as image:
            image.thumbnail((330, 270))
            sheet.paste(image, (place % 4 * 340, place // 4 * 280))
    sheet.save(path)
