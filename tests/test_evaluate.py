"""The command: what it prints, what it writes and where, and what it refuses."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from loading import loads

from mcar_tf import evaluate, metrics, report
from mcar_tf.evaluating.predictions_file import read_predictions
from mcar_tf.runs.folder import read_run_config
from mcar_tf.runs.thresholds import chosen_for, write_calibration
from pipelines.building.sets import build_set
from pipelines.files import write_text
from pipelines.manifest import load_manifest
from pipelines.readers.classes import COCO_CATEGORIES, VOC_CLASSES
from pipelines.samples import RawSet


@pytest.fixture(scope="module")
def evaluated(untrained_run, tmp_path_factory):
    """A run folder that the command has been run on, once."""
    folder = shutil.copytree(untrained_run, tmp_path_factory.mktemp("evaluated") / "run")
    evaluate.main(["--run", str(folder)])
    return folder


def test_metrics_lie_in_the_run_folder_under_their_split(evaluated):
    predictions, classes, split, data = read_predictions(evaluated / "predictions.npz")
    assert (len(predictions), len(classes), split) == (16, 4, "test")
    found = json.loads((evaluated / "metrics.json").read_text())
    assert list(found) == ["test"]
    expected = metrics.mean_average_precision(predictions.labels, predictions.probs, predictions.weights)
    assert found["test"]["fused"]["mAP"] == expected
    assert found["test"]["images"] == 16
    assert found["test"]["classes_without_positives"] == 1
    assert found["test"]["localization"]["objects"] == 22  # 16 squares and 6 second ones


def test_a_class_without_positives_is_an_empty_field(evaluated):
    with (evaluated / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["red", "green", "blue", "<b>rare & odd</b>"]
    assert rows[3]["positives"] == "0"
    assert rows[3]["AP_fused"] == rows[3]["recall"] == ""
    assert 0 < float(rows[0]["AP_fused"]) <= 1


def test_predictions_are_those_of_the_run_in_the_files_order(evaluated, tiny_set):
    from mcar_tf.runs.loading import load_run
    from pipelines.input_pipeline import make_eval_dataset

    predictions, *_ = read_predictions(evaluated / "predictions.npz")
    files = load_manifest(tiny_set, "tiny").splits["test"].files
    batch = next(iter(make_eval_dataset(files, num_classes=4, image_size=32, batch_size=16)))
    assert [i.decode() for i in batch["id"].numpy()] == predictions.ids.tolist()
    outputs = load_run(evaluated).model(batch["image"], boxes=predictions.boxes)
    np.testing.assert_allclose(predictions.probs, outputs["probs"], atol=1e-5)


def test_what_is_printed_is_the_papers_tables(tiny_run, capsys):
    evaluate.main(["--run", str(tiny_run), "--top3-min-prob", "0.6", "--threshold", "0.5"])
    printed = capsys.readouterr().out
    assert "16 images, 4 classes, of which 1 without positives are left out of all means: <b>rare" in printed
    assert "all, p >= 0.5" in printed
    assert "top 3, p >= 0.6" in printed
    assert "nan" not in printed
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    assert len(lines["fused"]) == 15  # name, mAP, 11 points, six over all, six over the top three
    # One class over three streams has dashes: no positives.
    assert lines["<b>rare"][-4:] == ["0", "-", "-", "-"]


def test_a_question_of_another_kind_is_answered_beside_the_runs_own_result(tiny_run):
    evaluate.main(["--run", str(tiny_run), "--image-size", "64", "--top-n", "1", "--flip"])
    assert json.loads((tiny_run / "metrics.json").read_text()) == {}
    folder = tiny_run / "evaluations" / "test,image_size=64,top_n=1,flip"
    predictions, *_ = read_predictions(folder / "predictions.npz")
    assert predictions.boxes.shape == (16, 1, 4)


def test_an_unfinished_run_does_not_pass_for_finished_once_evaluated(tiny_run):
    (tiny_run / "metrics.json").unlink()
    evaluate.main(["--run", str(tiny_run)])
    assert not (tiny_run / "metrics.json").exists()
    assert (tiny_run / "evaluations" / "test,unfinished" / "predictions.npz").is_file()
    report.main(["--run", str(tiny_run)])  # knows where to look


def test_other_splits_keep_their_metrics(evaluated, tmp_path):
    write_text(tmp_path / "metrics.json", '{"test": {"images": 1}}')
    evaluate.main(["--run", str(evaluated), "--split", "validation", "--out-dir", str(tmp_path)])
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == {"test", "validation"}


def test_the_plain_backbone_has_one_stream(tiny_run, capsys):
    evaluate.main(["--run", str(tiny_run), "--top-n", "0"])
    printed = capsys.readouterr().out
    assert "global" in printed
    assert "fused" not in printed
    assert "localization" not in printed


def test_calibrated_thresholds_decide(tiny_run, capsys):
    # Only "blue" can be predicted, and always is.
    thresholds = {"red": 1.0, "green": 1.0, "blue": 0.0, "<b>rare & odd</b>": 1.0}
    model = chosen_for(read_run_config(tiny_run), tiny_run / "checkpoints" / "last.weights.h5")
    write_calibration(tiny_run, {"thresholds": thresholds}, model)
    evaluate.main(["--run", str(tiny_run), "--calibrated"])
    folder = tiny_run / "evaluations" / "test,calibrated"
    with (folder / "per_class.csv").open() as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == ["0", "0", "16", "0"]
    printed = capsys.readouterr().out
    assert "calibrated thresholds" in printed
    assert "thresholds: each class's own, from" in printed


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--split", "nowhere"], ValueError, "one of train, validation, test.*'nowhere'"),
        (["--dataset", "nothing"], FileNotFoundError, "pipelines.build --dataset table --name nothing"),
        (["--threshold", "2"], ValueError, r"must lie in \[0, 1\]. Received: 2"),
        (["--top3-min-prob", "-1"], ValueError, r"`top3-min-prob` must lie in \[0, 1\]. Received: -1"),
        (["--batch-size", "0"], ValueError, "`batch-size` must be at least 1. Received: 0"),
        (["--calibrated"], ValueError, r"mcar_tf.calibrate --run .* What there is: 0.6 for every class"),
        (["--checkpoint", "best"], FileNotFoundError, "no best weights"),
        (["--voc-results", "comp2"], ValueError, "Pascal VOC's 20 classes"),
        (["--coco-results"], ValueError, "COCO's 80 classes"),
        (["--steadiness", "--flip"], ValueError, "Leave out --flip"),
        (["--top-n", "5"], ValueError, r"\[0, 4\], the number of classes. Received: 5"),
    ],
)
def test_what_can_not_be_answered_is_refused(untrained_run, words, error, message):
    with pytest.raises(error, match=message):
        evaluate.main(["--run", str(untrained_run), *words])
    assert not (untrained_run / "predictions.npz").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        evaluate.main(["--run", str(tmp_path)])


def test_a_set_of_other_classes_is_refused(tiny_run, rename_classes):
    rename_classes(tiny_run, "a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"knows 4 classes \(a, b, c, ...\), tiny has 4 \(red"):
        evaluate.main(["--run", str(tiny_run)])


def test_a_split_without_labels_gives_result_files_alone(tmp_path, capsys, make_run, make_sample):
    # VOC 2012's test: nobody knows any label.
    pictures = [
        dataclasses.replace(
            make_sample("test", i), id=f"2012_{i:06}", present=(), unknown=tuple(range(20)), boxes=()
        )
        for i in range(3)
    ]
    build_set(RawSet("voc2012", VOC_CLASSES, {"test": lambda: iter(pictures)}, source=""), tmp_path / "data")
    run = make_run(tmp_path / "data", "voc2012", VOC_CLASSES)
    with pytest.raises(ValueError, match=r"test of voc2012 has no labels.*--voc-results comp2"):
        evaluate.main(["--run", str(run)])
    evaluate.main(["--run", str(run), "--voc-results", "comp2"])
    files = sorted((run / "results" / "VOC2012" / "Main").iterdir())
    assert [file.name for file in files] == [f"comp2_cls_test_{name}.txt" for name in VOC_CLASSES]
    assert sorted(line.split()[0] for line in files[0].read_text().splitlines()) == [
        "2012_000000",
        "2012_000001",
        "2012_000002",
    ]
    assert json.loads((run / "metrics.json").read_text()) == {}
    assert "mAP" not in capsys.readouterr().out


def test_regions_become_coco_results_in_pixels(tmp_path, make_run, make_sample):
    names = tuple(COCO_CATEGORIES.values())
    pictures = [dataclasses.replace(make_sample("test", i), id=str(100 + i)) for i in range(3)]
    build_set(RawSet("coco", names, {"test": lambda: iter(pictures)}, source=""), tmp_path / "data")
    run = make_run(tmp_path / "data", "coco", names)
    evaluate.main(["--run", str(run), "--coco-results"])
    results = json.loads((run / "coco_results.json").read_text())
    assert sorted({result["image_id"] for result in results}) == [100, 101, 102]
    assert len(results) == 6  # two regions an image
    predictions, *_ = read_predictions(run / "predictions.npz")
    ymin, xmin, ymax, xmax = predictions.boxes[0, 0]
    assert results[0]["bbox"] == pytest.approx(
        [64 * xmin, 48 * ymin, 64 * (xmax - xmin), 48 * (ymax - ymin)], abs=0.01
    )
    assert results[0]["category_id"] == list(COCO_CATEGORIES)[predictions.box_classes[0, 0]]


def test_help_loads_no_tensorflow():
    assert loads("mcar_tf.evaluate", "--help") == []


def test_a_damaged_shard_is_named(tiny_run, tiny_set, tmp_path):
    data = Path(shutil.copytree(tiny_set, tmp_path / "data"))
    shard = data / "tiny" / "test-00000-of-00001.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{shard} is not what was written \(record \d+ cannot be read"):
        evaluate.main(["--run", str(tiny_run), "--data-dir", str(data)])
    assert not (tiny_run / "predictions.npz").exists()


def test_other_labels_of_the_runs_own_set_do_not_pass_for_its_own(evaluated, tiny_set, make_sample, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run")
    before = (run / "predictions.npz").read_bytes()
    shutil.copytree(tiny_set, tmp_path / "moved")
    evaluate.main(["--run", str(run), "--data-dir", str(tmp_path / "moved")])  # the same set
    data = read_predictions(run / "predictions.npz").data
    assert not (run / "evaluations").exists()
    assert data == load_manifest(tiny_set, "tiny").content_hash

    (run / "predictions.npz").write_bytes(before)
    splits = {s: lambda s=s: iter([make_sample(s, i) for i in range(16)]) for s in ("train", "validation")}
    swapped = [dataclasses.replace(make_sample("test", i), present=(3,)) for i in range(16)]
    splits["test"] = lambda: iter(swapped)
    classes = load_manifest(tiny_set, "tiny").classes
    build_set(RawSet("tiny", classes, splits, source="made by a test"), tmp_path / "other")
    evaluate.main(["--run", str(run), "--data-dir", str(tmp_path / "other")])
    assert (run / "predictions.npz").read_bytes() == before
    found = read_predictions(run / "evaluations" / "test,data_dir=other" / "predictions.npz")
    assert found.data == load_manifest(tmp_path / "other", "tiny").content_hash != data
