"""The files of evaluation servers, read back the way those read them."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from mcar_tf.evaluating import submission
from pipelines.readers.classes import VOC_CLASSES

DATA = os.environ.get("MCAR_TF_TEST_DATA")


def test_a_file_a_class_with_a_line_an_image(tmp_path):
    probs = np.array([[0.5, 0.25], [1e-7, 1]], np.float32)
    files = submission.write_voc_results(
        tmp_path / "results/VOC2012", ["2012_000001", "2012_000003"], ("aeroplane", "bicycle"), probs
    )
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "results/VOC2012/Main/comp2_cls_test_aeroplane.txt",
        "results/VOC2012/Main/comp2_cls_test_bicycle.txt",
    ]
    assert files[0].read_text() == "2012_000001 0.500000000\n2012_000003 0.000000100\n"
    assert files[1].read_text() == "2012_000001 0.250000000\n2012_000003 1.000000000\n"


@pytest.mark.skipif(DATA is None, reason="MCAR_TF_TEST_DATA names no folder of test data")
def test_lines_match_those_of_a_real_devkits_image_sets(tmp_path):
    sets = Path(str(DATA)) / "voc/VOCdevkit/VOC2012/ImageSets/Main"
    ids = [line.split()[0] for line in (sets / "val.txt").read_text().splitlines()]
    probs = np.random.default_rng(0).random((len(ids), 20))
    files = submission.write_voc_results(tmp_path, ids, VOC_CLASSES, probs, split="val", competition="comp1")
    for file, name in zip(files, VOC_CLASSES, strict=True):
        assert file.name == f"comp1_cls_val_{name}.txt"
        truth = (sets / f"{name}_val.txt").read_text().splitlines()
        lines = file.read_text().splitlines()
        # `VOCevalcls.m` looks each id up in the ground truth: same ids, one line each.
        assert [line.split()[0] for line in lines] == [line.split()[0] for line in truth]
        assert all(re.fullmatch(r"\S+ \d\.\d{9}", line) for line in lines)


def test_a_third_competition_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one of comp1, comp2.*'comp3'"):
        submission.write_voc_results(tmp_path, ["a"], ("dog",), np.zeros((1, 1)), competition="comp3")


def test_an_id_with_a_space_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one word.*'my dog'"):
        submission.write_voc_results(tmp_path, ["my dog"], ("dog",), np.zeros((1, 1)))


def test_probabilities_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        submission.write_voc_results(tmp_path, ["a"], ("dog",), np.full((1, 1), np.nan))


def test_regions_in_pixels_of_the_image():
    results = submission.coco_results(
        ["42"],
        np.array([[[0.25, 0.1, 0.75, 0.6]]]),
        np.array([[1]]),
        np.array([[0.875]]),
        {"42": (400, 640)},
        category_ids=[1, 17],
    )
    # x = 0.1 * 640, y = 0.25 * 400, width = 0.5 * 640, height = 0.5 * 400
    assert results == [{"image_id": 42, "category_id": 17, "bbox": [64, 100, 320, 200], "score": 0.875}]


def test_ids_that_are_not_cocos_are_refused():
    with pytest.raises(ValueError, match=r"whole numbers.*'dog-1'"):
        submission.coco_results(["dog-1"], np.zeros((1, 0, 4)), np.zeros((1, 0)), np.zeros((1, 0)), {}, [1])
