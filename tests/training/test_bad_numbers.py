"""What can't be measured is said, or printed with its caveat: no positives, one picture, no labels, NaN."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from mcar_tf import calibrate, evaluate, predict, report
from mcar_tf.fit import Row, print_closing
from mcar_tf.runs.folder import append_history, read_run_config
from pipelines.building.sets import build_set
from pipelines.files import write_text
from pipelines.samples import RawSet

CLASSES = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory, make_run, make_sample):
    """A run on a set whose splits are odd, each in its way; not to be changed."""

    def sample(i, **changes):
        return dataclasses.replace(make_sample("test", i), id=f"odd/{i}", **changes)

    empty = {"present": (), "boxes": (), "box_labels": ()}
    splits = {
        "train": lambda: iter([make_sample("train", i) for i in range(6)]),
        "test": lambda: iter([make_sample("test", i) for i in range(6)]),
        "nothing": lambda: iter([sample(i, **empty) for i in range(3)]),
        "one": lambda: iter([sample(1)]),
        "unknown": lambda: iter([sample(i, **empty, unknown=tuple(range(4))) for i in range(3)]),
    }
    data_dir = tmp_path_factory.mktemp("odd") / "data"
    build_set(RawSet("odd", CLASSES, splits, source="made by a test"), data_dir)
    return make_run(data_dir, "odd", CLASSES)


@pytest.fixture
def run(odd_run, tmp_path):
    return shutil.copytree(odd_run, tmp_path / "run")


def evaluate_as_result(run, split):
    """Evaluate a split as if the run had been trained for it."""
    text = (run / "config.yaml").read_text()
    write_text(run / "config.yaml", text.replace("eval_split: test", f"eval_split: {split}"))
    evaluate.main(["--run", str(run)])


def test_without_any_positive_everything_is_a_dash(run, capsys):
    evaluate_as_result(run, "nothing")
    printed = capsys.readouterr().out
    assert (
        "3 images, 4 classes, of which 4 without positives are left out of all means: red, green" in printed
    )
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.split()}
    assert lines["mAP"] == ["-", "-", "-"]
    assert lines["fused"][:2] == ["-", "-"]
    assert "nan" not in printed
    found = json.loads((run / "metrics.json").read_text())["nothing"]
    assert found["fused"]["mAP"] is found["global"]["CR"] is found["local"]["top3"]["OF1"] is None
    assert "nan" not in (run / "per_class.csv").read_text()

    report.main(["--run", str(run)])
    page = (run / "report.html").read_text()
    assert "<b>-</b><span>mAP, both streams" in page
    assert "No picture shows any class" in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower()


def test_a_run_whose_result_is_unknown_ends_in_dashes(odd_run, capsys):
    config = dataclasses.replace(read_run_config(odd_run), eval_split="nothing")
    unknown = {"mAP": None, "CF1": None, "OF1": None}
    print_closing(config, odd_run, [Row("baseline", 1.0, unknown), Row("MCAR", 5.0, unknown)], ["MCAR 1 s"])
    printed = capsys.readouterr().out
    assert "baseline              1.00       -       -       -\n" in printed
    assert "No picture of nothing is known to show any class" in printed


def test_one_picture_has_numbers_and_a_report(run, capsys):
    evaluate_as_result(run, "one")
    printed = capsys.readouterr().out
    assert (
        "1 image, 4 classes, of which 3 without positives are left out of all means: red, blue, yellow"
        in printed
    )
    assert "nan" not in printed
    assert json.loads((run / "metrics.json").read_text())["one"]["fused"]["mAP"] == 1  # ranked first of one
    report.main(["--run", str(run)])
    assert "measured on 1 picture of 4 classes." in (run / "report.html").read_text()


def test_without_labels_there_is_no_report(run):
    with pytest.raises(ValueError, match="has no labels, so nothing can be measured"):
        evaluate.main(["--run", str(run), "--split", "unknown"])
    with pytest.raises(
        ValueError, match="No image of unknown shows any class: there is nothing to calibrate by"
    ):
        calibrate.main(["--run", str(run), "--split", "unknown"])


def test_a_model_that_has_diverged_is_refused_by_all(run, tmp_path, make_sample):
    from mcar_tf.runs.loading import load_run
    from mcar_tf.runs.weights import write_weights

    model = load_run(run).model
    kernel, bias = model.classifier.get_weights()
    model.classifier.set_weights([kernel, np.where(np.arange(4) == 2, np.nan, bias)])
    write_weights(model, run / "checkpoints" / "last.weights.h5")
    message = (
        r"last.weights.h5 holds numbers that are not finite, first in classifier/bias: its training has div"
    )
    (tmp_path / "photo.png").write_bytes(make_sample("test", 0).image)
    with pytest.raises(ValueError, match=message):
        evaluate.main(["--run", str(run)])
    with pytest.raises(ValueError, match=message):
        predict.main(["--run", str(run), "--images", str(tmp_path / "photo.png")])
    assert not (run / "predictions.npz").exists()


def test_without_thresholds_a_run_predicts_from_06_on(run, tmp_path, make_sample):
    (tmp_path / "photo.png").write_bytes(make_sample("test", 0).image)
    predict.main(["--run", str(run), "--images", str(tmp_path / "photo.png")])
    (row,) = map(json.loads, (run / "predictions" / "predictions.jsonl").read_text().splitlines())
    assert row["labels"]
    assert all(label["prob"] >= 0.6 for label in row["labels"])
    with pytest.raises(ValueError, match=r"--calibrated needs thresholds .*mcar_tf\.calibrate --run"):
        evaluate.main(["--run", str(run), "--calibrated"])


def test_what_is_unknown_of_an_epoch_is_an_empty_field(tmp_path):
    append_history(tmp_path / "history.csv", {"epoch": 1, "val_mAP_fused": float("nan")})
    assert (tmp_path / "history.csv").read_text() == "epoch,val_mAP_fused\n1,\n"
