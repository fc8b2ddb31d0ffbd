"""Calibrated thresholds decide where they were chosen for this very model; otherwise 0.6 does, and it is said."""

import dataclasses
import json

import pytest

from mcar_tf.config import FitConfig
from mcar_tf.runs.thresholds import (
    Thresholds,
    chosen_for,
    find_thresholds,
    same_for_all,
    write_calibration,
)

CLASSES = ("cat", "dog")
CONFIG = FitConfig(image_size=64, top_n=2)
GOOD = '"thresholds": {"cat": 0.5, "dog": 0.5}'


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "last.weights.h5"
    file.write_bytes(b"trained")
    return file


@pytest.fixture
def calibrated(tmp_path, weights):
    write_calibration(tmp_path, {"thresholds": {"cat": 0.25, "dog": 0.75}}, chosen_for(CONFIG, weights))
    return tmp_path


def test_without_calibration_the_papers_threshold_decides(tmp_path, weights):
    found = find_thresholds(tmp_path, CONFIG, CLASSES, weights)
    assert found == Thresholds((0.6, 0.6), "0.6 for every class (`calibrate` finds better ones)")


def test_calibrated_thresholds_decide_where_they_fit(calibrated, weights):
    found = find_thresholds(calibrated, CONFIG, CLASSES, weights)
    assert (found.values, found.calibrated) == ((0.25, 0.75), True)
    assert found.said == f"each class's own, from {calibrated / 'thresholds.json'}"
    # What does not change the answers does not count; a local size that is the image's is none of its own.
    other = FitConfig(
        image_size=64, top_n=2, local_size=64, batch_size=2, data_dir=calibrated, weights="none"
    )
    assert find_thresholds(calibrated, other, CLASSES, weights).calibrated


@pytest.mark.parametrize(
    ("changes", "selection", "said"),
    [
        ({"image_size": 96}, "top", "--image-size 64, not 96 and --local-size 64, not 96"),
        ({"top_n": 0}, "top", "--top-n 2, not 0"),
        ({"tau": 0.3}, "top", "--tau 0.5, not 0.3"),
        ({"fusion": "mean"}, "top", "--fusion max, not mean"),
        ({"glance_size": 32}, "top", "--glance-size None, not 32 and --local-size 64, not 32"),
        ({}, "bottom", "--selection top, not bottom"),
    ],
)
def test_thresholds_of_other_options_do_not_decide(calibrated, weights, changes, selection, said):
    config = FitConfig(**({"image_size": 64, "top_n": 2} | changes))
    found = find_thresholds(calibrated, config, CLASSES, weights, selection)
    assert (found.values, found.calibrated) == ((0.6, 0.6), False)
    assert f"was chosen for {said} (`calibrate` renews it)" in found.said


def test_thresholds_from_before_an_option_decide_where_it_is_at_its_default(calibrated, weights):
    content = json.loads((calibrated / "thresholds.json").read_text())
    for name in ("glance-size", "fusion", "batch-norm"):
        del content["chosen_for"]["options"][name]
    (calibrated / "thresholds.json").write_text(json.dumps(content))
    whole = dataclasses.replace(CONFIG, glance_size=64)
    for config in (CONFIG, whole):
        assert find_thresholds(calibrated, config, CLASSES, weights).calibrated
    other = dataclasses.replace(CONFIG, fusion="mean")
    assert not find_thresholds(calibrated, other, CLASSES, weights).calibrated


def test_thresholds_of_other_weights_do_not_decide(calibrated, weights):
    weights.write_bytes(b"trained for another epoch")
    assert "was chosen for other weights" in find_thresholds(calibrated, CONFIG, CLASSES, weights).said


def test_thresholds_of_an_older_version_do_not_decide(calibrated, weights):
    (calibrated / "thresholds.json").write_text(json.dumps({"thresholds": {"cat": 0.25, "dog": 0.75}}))
    assert "something that it does not tell" in find_thresholds(calibrated, CONFIG, CLASSES, weights).said


@pytest.mark.parametrize(
    "chosen", [7, None, {"weights": "x", "options": 7}, {"weights": "x", "options": None}]
)
def test_thresholds_that_do_not_say_what_they_were_chosen_for_do_not_decide(calibrated, weights, chosen):
    content = json.loads((calibrated / "thresholds.json").read_text()) | {"chosen_for": chosen}
    (calibrated / "thresholds.json").write_text(json.dumps(content))
    assert "something that it does not tell" in find_thresholds(calibrated, CONFIG, CLASSES, weights).said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"thresholds\.json is damaged"),
        ("[1]", r"thresholds\.json is damaged"),
        ("{}", "must name the run's 2 classes in order"),
        ("[" * 100_000, r"thresholds\.json is damaged: it is nested too deep"),
        (
            '{"thresholds": {"cat": NaN, "dog": 0.5}}',
            r"the threshold of `cat` must lie in \[0, 1\]\. Received: nan",
        ),
        ('{"thresholds": {"cat": 0.5, "dog": 7}}', r"`dog` must lie in \[0, 1\]\. Received: 7"),
        ('{"thresholds": {"cat": -1, "dog": 0.5}}', r"`cat` must lie in \[0, 1\]\. Received: -1"),
        ('{"thresholds": {"cat": "0.5", "dog": 0.5}}', r"`cat` must lie in \[0, 1\]\. Received: 0.5"),
        ('{"thresholds": {"dog": 0.5, "cat": 0.5}}', "must name the run's 2 classes in order"),
        ('{"thresholds": {"dog": 0.5}}', "must name the run's 2 classes in order"),
        ('{"thresholds": [0.5, 0.5]}', "must name the run's 2 classes in order"),
        (
            f'{{{GOOD}, "temperature": "x"}}',
            r"thresholds\.json: `temperature` must be a number from 0.01 to 100",
        ),
        (f'{{{GOOD}, "temperature": 0}}', "`temperature` must be a number from 0.01 to 100. Received: 0"),
        (f'{{{GOOD}, "before": 7}}', "`before` must be an object with numbers of 0 to 1. Received: 7"),
        (f'{{{GOOD}, "after": {{"OF1": "high"}}}}', "`after` must be an object with numbers of 0 to 1"),
        (f'{{{GOOD}, "split": null}}', "`split` must be a text. Received: None"),
    ],
)
def test_damaged_thresholds_are_refused(tmp_path, weights, text, message):
    (tmp_path / "thresholds.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_thresholds(tmp_path, CONFIG, CLASSES, weights)


def test_one_threshold_for_all():
    assert same_for_all(CLASSES, 0.5) == Thresholds((0.5, 0.5), "0.5 for every class")
