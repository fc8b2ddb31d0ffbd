"""The command: what it writes and says, and what it refuses to choose by."""

import json

import pytest

from mcar_tf import calibrate
from mcar_tf.config import FitConfig
from pipelines.building.sets import build_set
from pipelines.files import write_text
from pipelines.manifest import Manifest
from pipelines.samples import RawSet


def test_thresholds_are_written_into_the_run(tiny_run, capsys):
    write_text(tiny_run / "thresholds.json", '{"of": "an earlier time"}')
    calibrate.main(["--run", str(tiny_run), "--min-positives", "4"])
    found = json.loads((tiny_run / "thresholds.json").read_text())
    assert (found["split"], found["images"], found["objective"]) == ("validation", 16, "F1")
    assert list(found["thresholds"]) == ["red", "green", "blue", "<b>rare & odd</b>"]
    assert found["thresholds"]["<b>rare & odd</b>"] == 0.6
    assert found["not_as_wanted"] == {"<b>rare & odd</b>": "only 1 of 4 positives"}
    assert list(found["intervals"]) == ["red", "green", "blue"]
    assert all(low <= high for low, high in found["intervals"].values())
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
        (["--min-precision", "1.5"], r"must lie in \(0, 1\]. Received: 1.5"),
        (["--min-positives", "0"], "at least 1. Received: 0"),
        (["--prior-positives", "-1"], "`prior-positives` must be 0 or more and finite. Received: -1"),
        (["--default-threshold", "-1"], r"must lie in \[0, 1\]. Received: -1"),
    ],
)
def test_what_would_flatter_or_makes_no_sense_is_refused(untrained_run, words, message):
    with pytest.raises(ValueError, match=message):
        calibrate.main(["--run", str(untrained_run), *words])
    assert not (untrained_run / "thresholds.json").exists()


def test_a_number_without_end_is_refused(tiny_run, capsys):
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--run", str(tiny_run), "--prior-positives", "inf"])
    assert ended.value.code == 2
    assert "`--prior-positives` must be a number. Received: 'inf'" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["devkit_train", "devkit_val"])
def test_a_part_of_what_was_learnt_from_is_refused(part):
    config = FitConfig(dataset="voc2012", train_split="train", eval_split="none")
    with pytest.raises(ValueError, match=f"The run was trained on train, which has pictures of {part}: "):
        calibrate.check_split(part, config, Manifest("voc2012", ("cat",), "", "", {}))


def test_a_set_of_other_classes_is_refused(tiny_run, rename_classes):
    rename_classes(tiny_run, "a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"knows 4 classes \(a, b, c, ...\), tiny has 4 \(red"):
        calibrate.main(["--run", str(tiny_run)])
    assert not (tiny_run / "thresholds.json").exists()


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


def test_thresholds_can_be_chosen_for_a_model_that_is_changed_without_training(tiny_run):
    from mcar_tf.runs.loading import load_run

    changes = {"top_n": 1, "fusion": "mean", "look_band": [0.05, 0.95]}
    words = ["--top-n", "1", "--fusion", "mean", "--look-band", "0.05", "0.95"]
    calibrate.main(["--run", str(tiny_run), "--min-positives", "4", *words])
    assert load_run(tiny_run, **changes).decision.calibrated
    assert not load_run(tiny_run).decision.calibrated
