"""The script `mcar`, and what `import mcar_tf` offers."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from loading import loads
from PIL import Image
from test_architecture import COMMANDS as MODULES

import mcar_tf
from mcar_tf.__main__ import COMMANDS, find_module, list_commands, main
from pipelines.words import typed


@pytest.fixture(scope="module")
def run(untrained_run):
    return mcar_tf.load_run(untrained_run)


def test_every_command_is_listed_once_with_a_line_that_fits_a_terminal():
    listed = [(name, *entry) for commands in COMMANDS.values() for name, entry in commands.items()]
    assert sorted(module for _, module, _ in listed) == sorted(MODULES)
    for name, _, what in listed:
        assert f"  {name:20}{what}" in list_commands().splitlines()
        assert what.endswith(".")
        assert len(what) <= 70


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_all_are_listed(words, capsys):
    main(words)
    assert capsys.readouterr().out == list_commands() + "\n"


def test_the_list_and_the_import_load_no_tensorflow():
    assert loads("mcar_tf", "--help") == loads("mcar_tf") == []


def test_the_exit_code_of_a_command_is_that_of_the_script(monkeypatch):
    monkeypatch.setattr("mcar_tf.sweep.main", lambda words: 2 if words == ["--vary", "tau=9"] else None)
    assert main(["sweep", "--vary", "tau=9"]) == 2
    assert main(["sweep"]) is None


def test_a_mistyped_command_gets_the_nearest():
    done = subprocess.run([sys.executable, "-m", "mcar_tf", "calibrat"], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: unknown command: `calibrat`. Did you mean `calibrate`? `mcar --help` lists all.\n"
    )


@pytest.mark.parametrize(
    ("command", "module"),
    [("fit", "mcar_tf.fit"), ("build", "pipelines.build"), ("import-run", "mcar_tf.import_run")],
)
def test_a_command_is_its_module(command, module):
    assert find_module(command) == module


def test_a_command_gets_its_options(capsys):
    with pytest.raises(FileNotFoundError, match=r"There is no image nowhere.jpg"):
        main(["predict", "--run", "runs/x", "--images", "nowhere.jpg"])


def test_messages_name_commands_as_the_user_starts_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mcar", "fit"])
    assert [typed(name) for name in ("mcar_tf.fit", "pipelines.build", "pipelines.benchmark")] == [
        *("mcar fit", "mcar build", "mcar benchmark_pipeline"),
    ]
    monkeypatch.setattr(sys, "argv", ["/x/mcar_tf/fit.py"])
    assert typed("mcar_tf.fit") == "python -m mcar_tf.fit"


def test_another_package_named_pipelines_is_named(tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", "import mcar_tf"], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert done.returncode == 1
    assert f"and Python found another one: {tmp_path}/pipelines. Start" in done.stderr


def test_the_package_offers_what_it_says():
    from mcar_tf import metrics
    from mcar_tf.models.mcar import build_mcar

    assert {"load_run", "build_mcar", "metrics", "__version__"} <= set(dir(mcar_tf))
    assert mcar_tf.build_mcar is build_mcar
    assert mcar_tf.metrics is metrics
    with pytest.raises(AttributeError, match=r"no attribute 'load_rum'. Did you mean `load_run`"):
        mcar_tf.load_rum  # noqa: B018


def test_a_picture_has_one_answer_whatever_it_comes_as(run, photos):
    file = photos / "0.png"
    with Image.open(file) as image:
        answers = [run.predict(x) for x in (str(file), file, image, np.asarray(image))]
    assert [answer.pop("image") for answer in answers] == [str(file), str(file), "picture 1", "picture 1"]
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert set(answers[0]) == {"labels", "regions"}
    assert len(answers[0]["regions"]) == 2


def test_answers_are_those_of_the_command(run, untrained_run, photos, tmp_path):
    import json

    from mcar_tf import predict

    predict.main(["--run", str(untrained_run), "--images", str(photos), "--out-dir", str(tmp_path)])
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    names = [json.loads(line)["image"] for line in lines]
    assert [json.dumps(answer, ensure_ascii=False) for answer in run.predict(names)] == lines
    assert len(lines) == 4


def test_a_picture_of_pillows_is_seen_upright(run, photos):
    with Image.open(photos / "0.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6  # stored lying on its side
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.png", exif=exif)
        upright = run.predict(image)
    with Image.open(photos / "turned.png") as turned:
        assert run.predict(turned)["labels"] == upright["labels"]


def test_one_bad_picture_of_several_has_an_error_and_alone_it_is_refused(run, photos):
    (photos / "bad.jpg").write_text("no picture")
    good, bad = run.predict([photos / "0.png", photos / "bad.jpg"])
    assert "error" not in good
    assert bad["error"] == "is not a picture in a known format"
    with pytest.raises(ValueError, match=r"bad.jpg is not a picture in a known format"):
        run.predict(photos / "bad.jpg")


def test_a_missing_picture_of_several_has_an_error_and_costs_the_others_nothing(run, photos):
    missing, folder, good = run.predict(["nowhere.jpg", photos, photos / "0.png"])
    assert (missing["image"], missing["labels"], missing["error"]) == ("nowhere.jpg", [], "does not exist")
    assert folder["error"] == "is no file but a folder, a pipe or a device"
    assert good == run.predict(photos / "0.png")


@pytest.mark.parametrize("empty", [np.zeros((0, 5, 3), np.uint8), Image.new("L", (0, 0))])
def test_a_picture_without_pixels_costs_the_others_nothing(run, photos, empty):
    bad, good = run.predict([empty, photos / "0.png"])
    assert bad["error"] == "has no pixels"
    assert "error" not in good
    with pytest.raises(ValueError, match=r"^picture 1 has no pixels$"):
        run.predict(empty)


def test_a_picture_of_pillows_that_ends_early_costs_the_others_nothing(run, photos):
    encoded = (photos / "0.png").read_bytes()
    with Image.open(io.BytesIO(encoded[:-200])) as cut_off, Image.open(io.BytesIO(encoded)) as whole:
        good, bad = run.predict([whole, cut_off])
        assert (good["image"], "error" in good) == ("picture 1", False)
        assert (bad["image"], bad["labels"]) == ("picture 2", [])
        assert bad["error"].startswith("is damaged or cut off: ")
        with pytest.raises(ValueError, match=r"^picture 1 is damaged or cut off: "):
            run.predict(cut_off)


@pytest.mark.parametrize(
    ("pictures", "error", "said"),
    [
        ("nowhere.jpg", FileNotFoundError, "There is no image nowhere.jpg"),
        (np.zeros((8, 8, 3), np.float32), ValueError, r"uint8. Received: \(8, 8, 3\) float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), ValueError, r"one picture .* Received: \(2, 8, 8, 3\) uint8"),
        ([b"bytes"], ValueError, "or an array of NumPy's; picture 1 is none. Received: bytes"),
        (None, ValueError, "`pictures` must be a path, .*, or a list of these. Received: None"),
        (3, ValueError, "`pictures` must be a path, .*, or a list of these. Received: 3"),
    ],
)
def test_what_is_no_picture_is_refused(run, pictures, error, said):
    with pytest.raises(error, match=said):
        run.predict(pictures)


def test_no_pictures_have_no_answers(run):
    assert run.predict([]) == []
