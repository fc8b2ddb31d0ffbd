"""Bulk prediction on Beam against `predict`, row by row; a killed job goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from loading import loads
from PIL import Image

from mcar_tf import export, predict, predict_beam

ROOT = Path(__file__).parent.parent
PICTURES = 25
WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def exported(untrained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beam") / "export"
    words = ["--run", str(untrained_run), "--out-dir", str(folder)]
    export.main([*words, "--formats", "saved_model", "--pictures", "4"])
    return folder


@pytest.fixture
def pictures(tmp_path):
    """25 pictures, one of them damaged, and a table that names each and one of them twice."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:-900])
    names = [file.name for file in sorted(folder.iterdir())]
    (folder / "table.csv").write_text("\n".join(["file", *names, names[3]]) + "\n")
    return folder


def rows_of(folder, what="predictions"):
    return [line for file in sorted(folder.glob(f"{what}-*.jsonl")) for line in file.read_text().splitlines()]


@pytest.fixture
def expected(untrained_run, pictures, tmp_path):
    """The rows of `predict`: of readable pictures, and of the damaged one."""
    words = ["--run", str(untrained_run), "--images", str(pictures), "--out-dir", str(tmp_path / "one")]
    with pytest.raises(ValueError, match="1 of 25 images could not be read"):
        predict.main([*words, "--batch-size", "2", "--threshold", "0.5"])
    rows = (tmp_path / "one" / "predictions.jsonl").read_text().splitlines()
    return [row for row in rows if '"error"' not in row], [row for row in rows if '"error"' in row]


def words_for(exported, pictures, out_dir):
    words = ["--export", str(exported), "--table", str(pictures / "table.csv"), "--out-dir", str(out_dir)]
    return [*words, "--threshold", "0.5", "--batch-size", "2", "--shard-size", "4"]


@pytest.mark.slow
def test_rows_are_those_of_predict_and_each_picture_comes_once(
    exported, pictures, expected, tmp_path, capsys
):
    pytest.importorskip("apache_beam")
    words = words_for(exported, pictures, tmp_path / "out")
    predict_beam.main(words)
    assert "25 pictures in 7 shards (1 were named again)" in capsys.readouterr().out
    assert (rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "unreadable")) == expected
    assert [len(rows) for rows in expected] == [24, 1]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == {"pictures": 25, "unreadable": 1, "shards": 7}

    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*-of-*")}
    gone = tmp_path / "out" / "predictions-00002-of-00007.jsonl"
    gone.unlink()
    predict_beam.main(words)
    assert rows_of(tmp_path / "out") == expected[0]
    renewed = [file for file, before in kept.items() if file.stat().st_mtime_ns != before]
    assert renewed == [gone]
    with pytest.raises(ValueError, match="holds predictions with --batch-size 2, not 4"):
        predict_beam.main([*words, "--batch-size", "4"])
    predict_beam.main([*words, "--shard-size", "25", "--batch-size", "25", "--overwrite"])
    assert len(rows_of(tmp_path / "out")) == 24


@pytest.mark.slow
def test_a_job_whose_workers_and_launcher_are_killed_goes_on(exported, pictures, expected, tmp_path):
    pytest.importorskip("apache_beam")
    out = tmp_path / "out"
    words = words_for(exported, pictures, out)
    job = subprocess.Popen(
        [sys.executable, "-m", "mcar_tf.predict_beam", *words, "--", *WORKERS],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not any(out.glob("lists/0*.done.json")):
            assert job.poll() is None, "the job ended before its first shard"
            time.sleep(0.01)
    finally:
        os.killpg(job.pid, signal.SIGKILL)  # the launcher and its workers, which are of its session
        job.wait()
    done = {file: file.stat().st_mtime_ns for file in out.glob("lists/0*.done.json")}
    assert not (out / "summary.json").exists()

    predict_beam.main(words)
    assert (rows_of(out), rows_of(out, "unreadable")) == expected
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert list(out.rglob("partial-*")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one of --images, --table and --dataset. Received: none"),
        (["--images", "a", "--table", "b.csv"], "Received: images and table"),
        (["--images", "a", "--file-column", "c"], "`file-column` does nothing without --table"),
        (["--images", "a", "--shard-size", "20"], "`shard-size` must be a multiple of --batch-size 16"),
        (["--images", "a", "--threshold", "2"], r"`threshold` must lie in \[0, 1\]"),
        (["--images", "a"], "is not an export folder"),
    ],
)
def test_wrong_options_are_refused(words, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict_beam.main(["--export", str(tmp_path), "--out-dir", str(tmp_path / "out"), *words])


def test_without_beam_its_installation_is_told(tmp_path, monkeypatch):
    (tmp_path / "parity.json").write_text("{}")
    (tmp_path / "saved_model" / "1").mkdir(parents=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Apache Beam is not installed: pip install 'mcar-tf\[beam\]'"):
        predict_beam.main(["--export", str(tmp_path), "--out-dir", str(tmp_path / "out"), "--images", "a"])


def test_an_export_without_a_saved_model_is_refused_before_any_worker_starts(tmp_path):
    (tmp_path / "parity.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds no SavedModel: export it with --formats saved_model"):
        predict_beam.main(["--export", str(tmp_path), "--out-dir", str(tmp_path / "out"), "--images", "a"])
    assert not (tmp_path / "out").exists()


def test_help_loads_neither_beam_nor_tensorflow():
    assert loads("mcar_tf.predict_beam", "--help") == []


@pytest.mark.parametrize("words", [{"table": "typo.csv"}, {"dataset": "typo"}])
def test_what_can_not_be_listed_deletes_no_earlier_results(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict_beam.PredictBeamOptions, "check", lambda options: None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("{}")
    argv = [item for name, value in words.items() for item in (f"--{name}", value)]
    with pytest.raises((ValueError, FileNotFoundError), match="typo"):
        predict_beam.main(["--export", "x", "--out-dir", "out", "--overwrite", *argv])
    assert (tmp_path / "out" / "plan.json").read_text() == "{}"


def test_a_set_built_anew_is_another(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "SHA256SUMS").write_text("{}")
    (tmp_path / "s").mkdir()
    said = []
    for content in ("one", "two"):
        (tmp_path / "s" / "dataset.json").write_text(content)
        options = predict_beam.PredictBeamOptions(
            export=tmp_path / "x", dataset="s", data_dir=tmp_path, out_dir=tmp_path
        )
        said.append(options.said)
    assert {name for name in said[0] if said[0][name] != said[1][name]} == {"data-dir"}
