"""Sweeps: which commands are run, what comes of their results, and what is refused before the first."""

import csv
import json
import xml.etree.ElementTree as ElementTree

import pytest

from mcar_tf import sweep


def option_of(words, name):
    return words[words.index(name) + 1]


@pytest.fixture
def commands(monkeypatch):
    """What would have been run; each leaves an mAP of 50 + top_n, 10 less at tau 0, unknown without top_n."""
    ran = []

    def run_to_end(words):
        from pathlib import Path

        ran.append(words)
        folder = Path(option_of(words, "--out-dir"))
        folder.mkdir(parents=True)
        mean = 0.5 + int(option_of(words, "--top-n")) / 100 if "--top-n" in words else None
        if mean and "--tau" in words and float(option_of(words, "--tau")) == 0:
            mean -= 0.1
        stream = {"mAP": mean, "CF1": 0.25, "OF1": 0.75}
        (folder / "metrics.json").write_text(
            json.dumps({"test": {"images": 9, "global": stream, "local": stream, "fused": stream}})
        )
        return 0

    monkeypatch.setattr(sweep, "run_to_end", run_to_end)
    return ran


def rows_of(folder):
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_is_trained_with_each_value_and_resumed_if_it_is_there(commands, tmp_path, capsys):
    sweep.main(["--vary", "top-n=0,4", "--out-dir", str(tmp_path), "--", "--dataset", "coco"])
    assert commands[1] == [
        *("mcar_tf.fit", "--dataset", "coco", "--top-n", "4"),
        *("--out-dir", str(tmp_path / "top_n=4"), "--resume"),
    ]
    assert [(row["top_n"], row["mAP_fused"]) for row in rows_of(tmp_path)] == [("0", "0.5"), ("4", "0.54")]
    printed = capsys.readouterr().out
    assert "[2/2] top_n=4" in printed
    assert "What next:\n  python -m mcar_tf.evaluate --run " in printed
    assert printed.splitlines()[-6].split() == ["4", "54.0", "54.0", "54.0", "25.0", "75.0"]
    texts = {e.text for e in ElementTree.fromstring((tmp_path / "sweep.svg").read_bytes()).iter()}
    assert {"top_n", "mAP, %", "fused", "global", "local"} <= texts


def test_all_combinations_are_tried_and_each_other_value_is_a_line(commands, tmp_path):
    sweep.main(["--vary", "tau=0,0.5", "top_n=2,4", "--out-dir", str(tmp_path)])
    assert [row["mAP_fused"][:4] for row in rows_of(tmp_path)] == ["0.42", "0.44", "0.52", "0.54"]
    texts = {e.text for e in ElementTree.fromstring((tmp_path / "sweep.svg").read_bytes()).iter()}
    assert {"tau", "top_n=2", "top_n=4"} <= texts


def test_a_run_is_evaluated_with_each_value(commands, untrained_run, tmp_path, capsys):
    sweep.main(
        [
            "--run",
            str(untrained_run),
            "--vary",
            "selection=top,bottom",
            "--out-dir",
            str(tmp_path),
            "--",
            "--flip",
        ]
    )
    assert commands[0] == [
        *("mcar_tf.evaluate", "--run", str(untrained_run), "--flip", "--selection", "top"),
        *("--out-dir", str(tmp_path / "selection=top")),
    ]
    assert rows_of(tmp_path)[1] | {"CF1": ""} == {  # unknown numbers: empty, and a dash
        **{"selection": "bottom", "mAP_global": "", "mAP_local": "", "mAP_fused": ""},
        **{"CF1": "", "OF1": "0.75"},
    }
    assert capsys.readouterr().out.splitlines()[-6].split() == ["bottom", "-", "-", "-", "25.0", "75.0"]
    assert not (tmp_path / "sweep.svg").exists()  # words have no axis


def test_the_first_command_that_fails_ends_the_sweep_with_its_code(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "run_to_end", lambda words: 2)
    assert sweep.main(["--vary", "top_n=0,4", "--out-dir", str(tmp_path)]) == 2
    assert not (tmp_path / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "top_n"], "as top_n=0,1,2,4. Received: 'top_n'"),
        (["--vary", "top_n=1,,2"], "as top_n=0,1,2,4. Received: 'top_n=1,,2'"),
        (["--vary", "top_n=1,1"], "every option and every value once"),
        (["--vary", "topn=1"], "fit has no option 'topn'. Did you mean `top_n`?"),
        (["--vary", "tau=0.5,1.5"], r"`--tau` must be in \[0, 1\). Received: 1.5"),
        (["--vary", "top_n=1", "--", "--out-dir", "x"], "--out-dir is the sweep's own business"),
    ],
)
def test_what_can_not_be_swept_is_refused_before_the_first_run(commands, words, message):
    with pytest.raises(ValueError, match=message):
        sweep.main(words)
    assert commands == []


@pytest.mark.slow
def test_a_sweep_of_real_commands(untrained_run, tmp_path):
    words = ["--run", str(untrained_run), "--vary", "top_n=0,2", "--out-dir", str(tmp_path)]
    assert sweep.main(words) == 0
    assert sweep.main(words) == 0  # again, over what is there
    assert [row["top_n"] for row in rows_of(tmp_path)] == ["0", "2"]
