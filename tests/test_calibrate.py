"""Thresholds are the best there are, the temperature is the one that was put in, and the file says so."""

import json

import numpy as np
import pytest

from mcar_tf import calibrate, metrics
from pipelines.building.sets import build_set
from pipelines.files import write_text
from pipelines.samples import RawSet


def f1_at(labels, probs, threshold):
    return metrics.precision_recall_f1(labels[:, None], probs[:, None], threshold)["CF1"]


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4)) < [0.5, 0.2, 0.1, 0.3]).astype(np.float32)
    probs = (0.35 * labels + rng.random((300, 4)) * 0.65).astype(np.float32)
    return labels, probs, np.ones_like(labels)


def test_no_other_threshold_has_a_higher_f1(scored):
    labels, probs, _ = scored
    chosen = calibrate.choose_thresholds(*scored).thresholds
    for c in range(4):
        best = f1_at(labels[:, c], probs[:, c], chosen[c])
        assert best == max(f1_at(labels[:, c], probs[:, c], t) for t in np.unique(probs[:, c]))


def test_no_other_threshold_of_the_wanted_precision_has_a_higher_recall(scored):
    labels, probs, _ = scored
    chosen = calibrate.choose_thresholds(*scored, precision=0.9).thresholds
    for c in range(4):
        found = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], chosen[c])
        assert found["CP"] >= 0.9
        for t in np.unique(probs[:, c]):
            other = metrics.precision_recall_f1(labels[:, [c]], probs[:, [c]], t)
            assert other["CP"] < 0.9 or other["CR"] <= found["CR"]


def test_a_threshold_lies_halfway_to_the_next_score_below():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.1]])
    chosen = calibrate.choose_thresholds(labels, probs, np.ones_like(labels), min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_labels_that_do_not_count_do_not_choose():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.75], [0.25], [0.8]])
    weights = np.array([[1], [1], [1], [0]], np.float32)
    chosen = calibrate.choose_thresholds(labels, probs, weights, min_positives=1)
    assert chosen.thresholds.tolist() == [0.5]


def test_rare_classes_keep_the_default():
    labels = np.zeros((20, 2), np.float32)
    labels[:5, 0] = labels[:4, 1] = 1
    found = calibrate.choose_thresholds(labels, 0.5 * labels + 0.2, np.ones_like(labels), min_positives=5)
    assert found.thresholds.tolist() == [pytest.approx(0.45), 0.6]
    assert found.reasons == {1: "only 4 of 5 positives"}


def test_a_precision_that_no_threshold_has_is_said():
    # The best precision of all is 2/3, at 0.5.
    labels = np.array([[0], [1], [1], [0]], np.float32)
    probs = np.array([[0.9], [0.7], [0.5], [0.1]])
    found = calibrate.choose_thresholds(labels, probs, np.ones_like(labels), precision=0.9, min_positives=1)
    assert found.thresholds.tolist() == [pytest.approx(0.3)]
    assert found.reasons == {0: "no threshold has precision 0.9; the best has 0.67"}


@pytest.mark.parametrize("temperature", [0.5, 1, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature):
    # Labels are drawn by probabilities whose logits were then multiplied by the temperature.
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (40000, 3))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    probs = 1 / (1 + np.exp(-logits * temperature))
    weights = np.ones_like(labels)
    assert calibrate.fit_temperature(labels, probs, weights) == pytest.approx(temperature, rel=0.03)
    after = calibrate.apply_temperature(probs, temperature)
    assert metrics.expected_calibration_error(labels, after) < 0.005


def test_a_temperature_of_one_changes_nothing():
    probs = np.array([0.001, 0.3, 0.999])
    np.testing.assert_allclose(calibrate.apply_temperature(probs, 1), probs, rtol=1e-12)


def test_probabilities_of_0_and_1_have_a_temperature():
    labels = np.array([[1.0, 0.0]])
    found = calibrate.fit_temperature(labels, np.array([[1.0, 0.0]], np.float32), np.ones_like(labels))
    assert 0.04 < found < 0.06  # certain and right: the lower bound, exp(-3)


def test_thresholds_are_written_into_the_run(tiny_run, capsys):
    write_text(tiny_run / "thresholds.json", '{"of": "an earlier time"}')
    calibrate.main(["--run", str(tiny_run), "--min-positives", "4"])
    found = json.loads((tiny_run / "thresholds.json").read_text())
    assert (found["split"], found["images"], found["objective"]) == ("validation", 16, "F1")
    assert list(found["thresholds"]) == ["red", "green", "blue", "<b>rare & odd</b>"]
    assert found["thresholds"]["<b>rare & odd</b>"] == 0.6
    assert found["not_as_wanted"] == {"<b>rare & odd</b>": "only 1 of 4 positives"}
    assert found["after"]["CF1"] >= found["before"]["CF1"]
    assert found["after"]["ECE"] < found["before"]["ECE"]
    printed = capsys.readouterr().out
    assert f"{found['temperature']:.3f}" in printed
    assert "nan" not in printed
    assert [path.name for path in tiny_run.glob("*partial*")] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test"], r"evaluated on test: .*would flatter"),
        (["--split", "train"], r"trained on train: .*would flatter"),
        (["--split", "minival"], r"no split 'minival' \(it has train, validation, test\).*--val-fraction"),
        (["--precision", "1.5"], r"must lie in \(0, 1\]. Received: 1.5"),
        (["--min-positives", "0"], "at least 1. Received: 0"),
        (["--default-threshold", "-1"], r"must lie in \[0, 1\]. Received: -1"),
    ],
)
def test_what_would_flatter_or_makes_no_sense_is_refused(untrained_run, words, message):
    with pytest.raises(ValueError, match=message):
        calibrate.main(["--run", str(untrained_run), *words])
    assert not (untrained_run / "thresholds.json").exists()


def test_without_a_validation_split_one_that_was_held_out_is_used(tmp_path, make_run, make_sample):
    splits = {
        split: lambda split=split: iter([make_sample(split, i) for i in range(16)])
        for split in ("train", "test")
    }
    names = ("red", "green", "blue", "yellow")
    build_set(RawSet("two", names, splits, source=""), tmp_path / "data")
    run = make_run(tmp_path / "data", "two", names)
    with pytest.raises(ValueError, match=r"no split 'validation' \(it has train, test\).*--val-fraction 0.1"):
        calibrate.main(["--run", str(run)])
    config = (run / "config.yaml").read_text()
    write_text(run / "config.yaml", config.replace("val_fraction: 0.0", "val_fraction: 0.5"))
    calibrate.main(["--run", str(run)])
    assert json.loads((run / "thresholds.json").read_text())["images"] == 8


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        calibrate.main(["--run", str(tmp_path)])
