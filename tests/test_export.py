"""The command: what it writes, that it is whole or not there, and what it refuses."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mcar_tf import export
from mcar_tf.exporting import forms
from mcar_tf.runs.folder import learnt_from, read_run_config
from mcar_tf.runs.thresholds import chosen_for, write_calibration


@pytest.fixture(scope="module")
def finished_run(untrained_run, tmp_path_factory):
    """A run folder that has its result, and thresholds."""
    folder = shutil.copytree(untrained_run, tmp_path_factory.mktemp("finished") / "squares")
    six = dict.fromkeys(("CP", "CR", "CF1", "OP", "OR", "OF1"), 0.25)
    streams = {stream: {"mAP": 0.5, **six} for stream in ("global", "local", "fused")}
    (folder / "metrics.json").write_text(json.dumps({"test": {"images": 16, **streams}}))
    classes = (folder / "classes.txt").read_text().splitlines()
    calibration = {"checkpoint": "last", "thresholds": dict.fromkeys(classes, 0.25)}
    weights = folder / "checkpoints" / "last.weights.h5"
    write_calibration(folder, calibration, chosen_for(read_run_config(folder), weights))
    return folder


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """An export folder, made once."""
    folder = tmp_path_factory.mktemp("exported") / "squares"
    export.main(["--run", str(finished_run), "--out-dir", str(folder)])
    return folder


def test_everything_that_was_promised_lies_in_the_export_folder(exported):
    files = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert files >= {
        "saved_model/1/saved_model.pb",
        "saved_model/1/assets/labels.txt",
        "saved_model/1/assets/thresholds.json",
        "saved_model/1/assets/card.md",
        "mcar-float32.tflite",
        "labels.txt",
        "thresholds.json",
        "card.md",
        "parity.json",
    }
    thresholds = json.loads((exported / "thresholds.json").read_text())
    assert thresholds == {"red": 0.25, "green": 0.25, "blue": 0.25, "<b>rare & odd</b>": 0.25}
    assert "`thresholds.json`.\n" in (exported / "card.md").read_text()  # nothing is said against them
    assert [path.name for path in exported.parent.iterdir()] == ["squares"]


def test_parity_is_within_the_bars(exported):
    parity = json.loads((exported / "parity.json").read_text())
    assert (parity["dataset"], parity["split"]) == ("tiny", "test")
    assert set(parity["forms"]) == {"saved_model", "mcar-float32.tflite"}
    for measured in parity["forms"].values():
        assert measured["pictures"] == 16
        assert measured["global_difference"] <= 1e-4
        assert measured["local_difference"] <= 1e-4
        assert measured["model_mean_ap"] > 0


def test_the_card_says_what_somebody_with_the_files_alone_must_know(exported):
    card = (exported / "card.md").read_text(encoding="utf-8")
    for told in (
        "# squares",
        "made by a test",  # where the data come from
        "| measured on | test | 16 |",
        "| backbone | tiny_resnet |",
        "| both, fused | 50.0 |",
        "## Limits",
        "mcar-float32.tflite",  # in the table of parity
    ):
        assert told in card
    inside = (exported / "saved_model" / "1" / "assets" / "card.md").read_text(encoding="utf-8")
    assert card.startswith(inside)


def test_labels_are_in_the_order_of_the_outputs(exported, finished_run):
    labels = (exported / "labels.txt").read_text(encoding="utf-8")
    assert labels == (finished_run / "classes.txt").read_text(encoding="utf-8")


def test_options_change_what_is_exported(finished_run, tmp_path):
    from mcar_tf.exporting.tflite import load_runner

    words = "--formats tflite --top-n 1 --local-size 16 --image-size 48 --tflite-input uint8 --pictures 1"
    export.main(["--run", str(finished_run), "--out-dir", str(tmp_path / "out"), *words.split()])
    assert not (tmp_path / "out" / "saved_model").exists()
    answer = load_runner((tmp_path / "out" / "mcar-float32.tflite").read_bytes())
    assert answer(image=np.zeros((1, 48, 48, 3), np.uint8))["boxes"].shape == (1, 1, 4)
    card = (tmp_path / "out" / "card.md").read_text()
    assert "It was exported with other options: image_size 48, local_size 16, top_n 1." in card
    # The run's thresholds were chosen for other options, which give other probabilities.
    for changed in (r"--image-size \d+, not 48", r"--local-size \d+, not 16", r"--top-n \d+, not 1"):
        assert re.search(
            rf"The threshold is 0\.6 for every class, since \S+ was chosen for .*{changed}", card
        )
    assert not (tmp_path / "out" / "thresholds.json").exists()
    assert "Probabilities are not calibrated" in card
    assert (
        json.loads((tmp_path / "out" / "parity.json").read_text())["forms"]["mcar-float32.tflite"]["pictures"]
        == 1
    )


def test_pictures_held_out_of_training_are_a_split_and_int8_looks_at_none(
    finished_run, tiny_set, tmp_path, monkeypatch
):
    """A set without a validation split of its own, of which the run held a quarter out: 4 of 16 pictures."""
    from mcar_tf.exporting.tflite import write_tflite
    from pipelines.manifest import load_manifest, write_manifest

    data_dir = Path(shutil.copytree(tiny_set, tmp_path / "data"))
    manifest = load_manifest(data_dir, "tiny")
    splits = {name: manifest.splits[name] for name in ("train", "test")}
    write_manifest(data_dir / "tiny", dataclasses.replace(manifest, splits=splits))
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = (run / "config.yaml").read_text().replace("val_fraction: 0.0", "val_fraction: 0.25")
    assert "val_fraction: 0.25" in config
    (run / "config.yaml").write_text(config)
    environment = json.loads((run / "environment.json").read_text())
    environment["data"] = learnt_from(read_run_config(run), load_manifest(data_dir, "tiny"))
    (run / "environment.json").write_text(json.dumps(environment))
    shown = []

    def counted(model, classes, path, precision, calibration, **more):
        shown.extend(calibration)
        write_tflite(model, classes, path, "float32", **more)

    monkeypatch.setattr("mcar_tf.exporting.tflite.write_tflite", counted)
    words = ["--run", run, "--data-dir", data_dir, "--out-dir", tmp_path / "out", "--split", "validation"]
    words += ["--formats", "tflite", "--precision", "int8"]
    export.main([str(word) for word in words])
    assert len(shown) == 12
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["forms"]["mcar-int8.tflite"]["pictures"] == 4
    assert "| trained on | train | 12 |" in (tmp_path / "out" / "card.md").read_text()


def test_the_pictures_that_were_trained_on_are_needed_by_int8_alone(finished_run, tiny_set, tmp_path):
    from pipelines.manifest import load_manifest, write_manifest

    data_dir = Path(shutil.copytree(tiny_set, tmp_path / "data"))
    manifest = load_manifest(data_dir, "tiny")
    write_manifest(data_dir / "tiny", dataclasses.replace(manifest, splits={"test": manifest.splits["test"]}))
    words = [
        "--run",
        finished_run,
        "--data-dir",
        data_dir,
        "--out-dir",
        tmp_path / "out",
        "--formats",
        "tflite",
    ]
    words = [str(word) for word in words]
    refused(
        [*words, "--precision", "int8"], ValueError, r"training split, and tiny has no train \(it has test\)"
    )
    export.main(words)
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| measured on | test | 16 |" in card
    assert "trained on |" not in card


def test_a_model_without_regions_is_exported_in_both_formats(finished_run, tmp_path):
    words = ["--run", str(finished_run), "--out-dir", str(tmp_path / "out"), "--top-n", "0"]
    export.main(words)
    forms = json.loads((tmp_path / "out" / "parity.json").read_text())["forms"]
    assert set(forms) == {"saved_model", "mcar-float32.tflite"}
    assert all(measured["box_iou"] == 1 for measured in forms.values())


def test_a_missed_bar_leaves_nothing_behind(finished_run, tmp_path, monkeypatch, capsys):
    out_of_reach = dataclasses.replace(forms.find_form("saved_model"), bar=forms.Bar(-1.0))
    monkeypatch.setattr(forms, "FORMS", (out_of_reach,))
    words = ["--run", str(finished_run), "--out-dir", str(tmp_path / "out"), "--formats", "saved_model"]
    with pytest.raises(SystemExit) as stopped:
        export.main(words)
    assert stopped.value.code == 1
    assert "nothing was exported: saved_model: global probabilities differ by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_the_one_before_it(finished_run, exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported, tmp_path / "out")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mcar_tf.exporting.saved_model.write_saved_model", full)
    with pytest.raises(OSError, match="No space left"):
        export.main(["--run", str(finished_run), "--out-dir", str(folder), "--overwrite"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (folder / "parity.json").read_bytes() == (exported / "parity.json").read_bytes()


def test_an_export_that_another_came_before_does_not_replace_it(
    finished_run, exported, tmp_path, monkeypatch
):
    from mcar_tf.exporting import writing

    write_papers = writing.write_papers

    def overtaken(*arguments):
        shutil.copytree(exported, tmp_path / "out")
        write_papers(*arguments)

    monkeypatch.setattr(writing, "write_papers", overtaken)
    words = ["--formats", "tflite", "--pictures", "1", "--out-dir"]
    refused(["--run", str(finished_run), *words, str(tmp_path / "out")], FileExistsError, "is there already")
    assert (tmp_path / "out" / "saved_model").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def refused(words, error, match):
    with pytest.raises(error, match=match):
        export.main(words)


def test_an_existing_export_folder_is_refused(finished_run, exported):
    words = ["--run", str(finished_run), "--out-dir", str(exported)]
    refused(words, FileExistsError, "is there already. --overwrite replaces it")


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_what_is_no_export_folder_is_never_replaced(finished_run, tmp_path, options):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("home", "file"):
        words = ["--run", str(finished_run), "--out-dir", str(tmp_path / name), *options]
        refused(words, FileExistsError, "is there already and is no export folder")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_an_unfinished_run_is_refused(tiny_run, tmp_path):
    (tiny_run / "metrics.json").unlink()
    words = ["--run", str(tiny_run), "--out-dir", str(tmp_path / "out")]
    refused(words, FileNotFoundError, r"is unfinished: .* Finish it: python -m mcar_tf.fit .* --resume")


def test_the_line_that_finishes_a_run_can_be_pasted(tiny_run, tmp_path):
    run = tiny_run.rename(tmp_path / "my run")
    (run / "metrics.json").unlink()
    words = ["--run", str(run), "--out-dir", str(tmp_path / "out")]
    refused(words, FileNotFoundError, r"--config '.*/my run/config.yaml' --out-dir '.*/my run' --resume")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    refused(["--run", str(tmp_path)], FileNotFoundError, "is not a run folder")


def test_int8_without_the_set_to_calibrate_on_is_refused(finished_run, tmp_path):
    words = ["--run", str(finished_run), "--precision", "int8", "--data-dir", str(tmp_path)]
    refused(words, FileNotFoundError, "The prepared set .*tiny is not there. Build it:")


def test_a_set_of_other_classes_is_refused(finished_run, tiny_set, tmp_path):
    from pipelines.manifest import load_manifest, write_manifest

    data_dir = Path(shutil.copytree(tiny_set, tmp_path / "data"))
    manifest = load_manifest(data_dir, "tiny")
    others = ("green", "red", *manifest.classes[2:])  # the same ones in another order
    write_manifest(data_dir / "tiny", dataclasses.replace(manifest, classes=others))
    words = ["--run", str(finished_run), "--data-dir", str(data_dir), "--out-dir", str(tmp_path / "out")]
    refused(words, ValueError, r"knows 4 classes \(red, green, .*, tiny has 4 \(green, red")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_unknown_split_is_refused(finished_run):
    refused(
        ["--run", str(finished_run), "--split", "val"],
        ValueError,
        "`--split` must be one of train, validation, test",
    )


def test_no_pictures_are_refused(finished_run):
    refused(["--run", str(finished_run), "--pictures", "0"], ValueError, "`pictures` must be at least 1")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("--formats saved_model --precision int8", "`precision` does nothing without --formats tflite"),
        (
            "--formats saved_model --tflite-input uint8",
            "`tflite-input` does nothing without --formats tflite",
        ),
        ("--calibration-pictures 50", "`calibration-pictures` does nothing without --precision int8"),
    ],
)
def test_options_that_would_do_nothing_are_refused(finished_run, options, match):
    refused(["--run", str(finished_run), *options.split()], ValueError, match)


def test_int8_without_its_quantizer_is_refused_at_once(finished_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = export.ExportOptions(run=finished_run, precision=["int8"])
    with pytest.raises(
        ValueError, match=r"mcar-int8.tflite needs litert-quantizer: pip install 'mcar-tf\[phone\]'"
    ):
        options.check()


def test_an_unknown_precision_is_one_line():
    command = [sys.executable, "-m", "mcar_tf.export", "--run", "x", "--precision", "int4"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "int4" in result.stderr
