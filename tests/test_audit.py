"""The command: what it writes of labels that are likely to be mistakes, and what it refuses."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_report import Page

from mcar_tf import audit, evaluate
from mcar_tf.auditing.cases import Case
from mcar_tf.auditing.files import picture_name, write_cases, write_label_studio
from mcar_tf.evaluating.predictions_file import read_predictions, write_predictions
from pipelines.readers.table import read_table


@pytest.fixture(scope="module")
def doubting_run(untrained_run, tmp_path_factory):
    """A run that agrees with its labels, but sees blue in test/03 and no red in test/00; not to be changed."""
    pytest.importorskip("cleanlab")
    folder = Path(shutil.copytree(untrained_run, tmp_path_factory.mktemp("audited") / "run"))
    evaluate.main(["--run", str(folder)])
    predictions, *of = read_predictions(folder / "predictions.npz")
    probs = np.where(predictions.labels, 0.9, 0.1).astype(np.float32)
    probs[predictions.ids.tolist().index("test/03"), 2] = 0.98
    probs[predictions.ids.tolist().index("test/00"), 0] = 0.03
    predictions.global_probs[:], predictions.local_probs[:], predictions.fused_probs = probs, probs, None
    write_predictions(folder / "predictions.npz", predictions, *of)
    return folder


@pytest.fixture
def doubting(doubting_run, tmp_path):
    """The same run, in a folder of one's own."""
    return Path(shutil.copytree(doubting_run, tmp_path / "run"))


def test_what_an_audit_writes(doubting, capsys):
    audit.main(["--run", str(doubting)])
    printed = capsys.readouterr().out
    assert "16 pictures, 64 labels: 1 likely wrong, 1 likely missing" in printed
    folder = doubting / "audit"
    with (folder / "cases.csv").open() as file:
        missing, wrong = csv.DictReader(file)
    assert (missing["rank"], missing["id"], missing["class"], missing["kind"]) == (
        "1",
        "test/03",
        "blue",
        "missing",
    )
    assert (missing["probability"], missing["quality"]) == ("0.9800", "0.0200")
    assert (wrong["rank"], wrong["id"], wrong["class"], wrong["kind"]) == ("2", "test/00", "red", "wrong")
    for case in (missing, wrong):
        ymin, xmin, ymax, xmax = (float(case[edge]) for edge in ("ymin", "xmin", "ymax", "xmax"))
        assert 0 <= ymin < ymax <= 1
        assert 0 <= xmin < xmax <= 1
        with Image.open(folder / case["picture"]) as picture:
            assert picture.size == (64, 48)

    page = Page((folder / "audit.html").read_text())
    assert "script" not in page.tags
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/jpeg") for source in page.sources)
    assert "1. Likely missing: blue (p = 0.98). Labels: red, green. test/03" in page.text

    found = json.loads(
        (folder / "labels.json").read_text()
    )  # as FiftyOne's FiftyOneImageDetectionDataset has it
    assert found["classes"] is None
    assert set(found["labels"]) == {path.stem for path in (folder / "data").iterdir()}
    (detection,) = found["labels"]["00001-03"]
    assert (detection["label"], detection["attributes"]["kind"]) == ("blue", "missing")
    assert 0 < detection["bounding_box"][2] <= 1


def test_tasks_of_label_studio_hold_the_mended_labels_and_are_read_again_once_accepted(doubting):
    audit.main(["--run", str(doubting)])
    tasks = json.loads((doubting / "audit" / "label_studio.json").read_text())
    mended = {task["data"]["id"]: task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks}
    assert mended == {"test/03": ["red", "green", "blue"], "test/00": ["green"]}
    region = tasks[0]["predictions"][0]["result"][1]
    assert (region["original_width"], region["original_height"], region["type"]) == (64, 48, "rectangle")
    assert region["meta"]["text"] == ["likely missing: blue (p = 0.98)"]
    interface = (doubting / "audit" / "label_studio.xml").read_text()
    assert '<Choice value="&lt;b&gt;rare &amp; odd&lt;/b&gt;"/>' in interface

    # What a person accepts becomes an annotation of the same results.
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    (doubting / "audit" / "export.json").write_text(json.dumps(tasks))
    raw = read_table(doubting / "audit" / "export.json", file_column="image", val_fraction=0, test_fraction=0)
    read = {sample.id: [raw.classes[c] for c in sample.present] for sample in raw.splits["train"]()}
    assert read == {"data/00001-03.png": ["blue", "green", "red"], "data/00002-00.png": ["green"]}


def test_an_audit_takes_the_place_of_an_earlier_one(doubting):
    audit.main(["--run", str(doubting)])
    audit.main(["--run", str(doubting), "--cases", "1"])
    assert [path.name for path in (doubting / "audit" / "data").iterdir()] == ["00001-03.png"]
    assert len((doubting / "audit" / "cases.csv").read_text().splitlines()) == 2


def test_predictions_older_than_the_weights_are_made_anew(doubting, capsys):
    os.utime(doubting / "checkpoints" / "last.weights.h5")
    before = (doubting / "predictions.npz").stat().st_mtime_ns
    audit.main(["--run", str(doubting)])
    assert (doubting / "predictions.npz").stat().st_mtime_ns > before
    assert "1 likely wrong, 1 likely missing" not in capsys.readouterr().out


def test_predictions_with_the_labels_of_another_set_are_made_anew(doubting, capsys):
    predictions, classes, split, _ = read_predictions(doubting / "predictions.npz")
    write_predictions(doubting / "predictions.npz", predictions, classes, split, "another set's")
    audit.main(["--run", str(doubting)])
    assert "1 likely wrong, 1 likely missing" not in capsys.readouterr().out
    assert read_predictions(doubting / "predictions.npz").data not in ("", "another set's")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give --run with one run folder, or --runs with several"),
        (["--run", "RUN", "--runs", "RUN"], "Give --run with one run folder, or --runs with several"),
        (["--run", "RUN", "--cases", "0"], "`--cases` must be at least 1. Received: 0"),
        (["--run", "RUN", "--split", "train"], "was trained on train: it would repeat the labels of train"),
        (["--run", "RUN", "--split", "tset"], "must be one of train, validation, test"),
        (["--runs", "RUN", "RUN"], r"share pictures \(test and test\). Give one run for each fold"),
        (["--run", "RUN", "--out-dir", "RUN"], "is not empty and holds no audit. Choose another --out-dir"),
    ],
)
def test_what_makes_no_sense_is_refused(doubting_run, words, message):
    words = [word.replace("RUN", str(doubting_run)) for word in words]
    with pytest.raises((ValueError, FileExistsError), match=message):
        audit.main(words)
    assert not (doubting_run / "audit").exists()


def test_without_cleanlab_the_error_says_what_to_install(untrained_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ValueError, match=r'pip install "mcar-tf\[audit\]"'):
        audit.main(["--run", str(untrained_run)])


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    case = Case(part=0, row=0, id="=cmd|x.jpg", class_index=0, kind="wrong", prob=0.1, quality=0.1)
    write_cases(
        tmp_path / "cases.csv", [case], ["+cat"], {case: (0.0, 0.0, 1.0, 1.0)}, {case.id: "00001-x.jpg"}
    )
    with (tmp_path / "cases.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["class"]) == ("'=cmd|x.jpg", "'+cat")


def test_two_cases_of_a_picture_are_one_task(tmp_path):
    cases = [Case(0, 0, "a.jpg", c, kind, 0.5, 0.5) for c, kind in ((0, "wrong"), (2, "missing"))]
    boxes = dict.fromkeys(cases, (0.0, 0.25, 0.5, 1.0))
    names = {"a.jpg": "00001-a.jpg"}
    write_label_studio(
        tmp_path, cases, ["cat", "dog", "cow"], boxes, names, {"a.jpg": (0, 1)}, {"a.jpg": (48, 64)}
    )
    (task,) = json.loads((tmp_path / "label_studio.json").read_text())
    choices, region, _ = task["predictions"][0]["result"]
    assert choices["value"]["choices"] == ["dog", "cow"]
    assert region["value"] == {"x": 25, "y": 0, "width": 75, "height": 50, "rotation": 0}


@pytest.mark.parametrize(
    ("identity", "encoded", "name"),
    [
        ("beach/a b.jpg", b"\xff\xd8\xff", "00007-a_b.jpg"),
        ("2008_000008", b"\x89PNG", "00007-2008_000008.png"),
        ("x.heic", b"RIFF", "00007-x.webp"),
    ],
)
def test_a_picture_is_named_by_number_and_id(identity, encoded, name):
    assert picture_name(7, identity, encoded) == name
