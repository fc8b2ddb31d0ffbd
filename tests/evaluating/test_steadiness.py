"""Answers to variants of pictures: what counts as a change, and that each variant is what it is called."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mcar_tf import evaluate
from mcar_tf.evaluating.columns import VARIANT_TITLES
from mcar_tf.evaluating.steadiness import compare_answers
from pipelines.manifest import load_manifest


def test_a_picture_counts_once_however_many_labels_change():
    before = np.array([[0.59, 0.59], [0.9, 0.1], [0.6, 0.2], [0.3, 0.3]])
    after = np.array([[0.61, 0.62], [0.8, 0.1], [0.6, 0.2], [0.3, 0.4]])
    found = compare_answers(before, after, (0.6, 0.6))
    assert found["changed"] == 0.25
    assert found["change_50"] == pytest.approx((0.03 + 0.1) / 2)
    assert found["change_99"] == pytest.approx(0.1)


def test_each_class_has_its_own_threshold():
    before, after = np.array([[0.5, 0.5]]), np.array([[0.55, 0.55]])
    assert compare_answers(before, after, (0.6, 0.6))["changed"] == 0
    assert compare_answers(before, after, (0.6, 0.52))["changed"] == 1


def test_variants_are_what_pillow_makes_of_the_original(tiny_set):
    from pipelines.input_pipeline import read_records
    from pipelines.records import parse_record
    from pipelines.variants import make_variants_dataset

    files = load_manifest(tiny_set, "tiny").splits["test"].files
    batch = next(iter(make_variants_dataset(files, image_size=24, batch_size=16)))
    assert set(batch) == {"as_it_is", *VARIANT_TITLES}
    encoded = [parse_record(record)["encoded"].numpy() for record in read_records(files)]
    for i, content in enumerate(encoded):
        original = Image.open(io.BytesIO(content)).convert("RGB")
        as_it_is = batch["as_it_is"][i].numpy()
        np.testing.assert_array_equal(batch["rounded"][i], np.round(as_it_is))
        resized = np.asarray(original.resize((24, 24), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(batch["resized"][i], resized)
        again = io.BytesIO()
        original.save(again, "JPEG", quality=90)
        by_pillow = np.asarray(Image.open(again).resize((24, 24), Image.Resampling.BILINEAR), float)
        assert np.abs(batch["saved_again"][i] - by_pillow).mean() < 2
    assert np.abs(batch["saved_again"] - batch["as_it_is"]).max() > 0


def test_the_command_writes_and_prints_it(untrained_run, tmp_path, capsys):
    run = shutil.copytree(untrained_run, tmp_path / "run")
    evaluate.main(["--run", str(run), "--steadiness"])
    found = json.loads((run / "metrics.json").read_text())["test"]["steadiness"]
    assert set(found) == set(VARIANT_TITLES)
    assert all(0 <= values["changed"] <= 1 for values in found.values())
    assert all(v["change_50"] <= v["change_90"] <= v["change_99"] for v in found.values())
    printed = capsys.readouterr().out
    assert "rounded to whole levels" in printed
    assert "labels change" in printed
