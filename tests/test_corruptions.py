"""Damaged files of a run and of a set: the right answer and 0, or a line that names the file and 2.

At full size, 1,000 of them: `pytest -m slow tests/test_corruptions.py -k 1000`; `-s` shows each code's number.
"""

import collections
import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from asking import COMMANDS, Asker
from corrupt import corrupt

from mcar_tf import calibrate, evaluate

# File -> who reads it. A change of a value that leaves a good file is an answer to another question.
READERS = {
    "run/config.yaml": ("predict", "evaluate", "calibrate"),
    "run/classes.txt": ("predict", "evaluate"),
    "run/environment.json": ("predict", "evaluate", "report"),
    "run/thresholds.json": ("predict", "report"),
    "run/checkpoints/last.weights.h5": ("predict",),
    "run/checkpoints/last.weights.h5.sha256": ("predict",),
    "run/metrics.json": ("report",),
    "run/history.csv": ("report",),
    "run/predictions.npz": ("compare", "report"),
    "data/tiny/dataset.json": ("evaluate", "calibrate", "report"),
    "data/tiny/test-00000-of-00001.tfrecord": ("evaluate", "report"),
}
MAY_DIFFER = {"config.yaml", "thresholds.json", "metrics.json", "history.csv"}
SHOWN = ("run/environment.json", "report")  # a report has the versions of its run


@pytest.fixture(scope="module")
def whole(untrained_run, tiny_set, tmp_path_factory):
    """A run with all that commands write into it, its set and a picture, and each command's answer."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(untrained_run, folder / "run")
    shutil.copytree(tiny_set, folder / "data")
    config = (folder / "run" / "config.yaml").read_text()
    (folder / "run" / "config.yaml").write_text(
        config.replace(str(tiny_set), str(folder / "data")).replace("top_n: 2", "top_n: 0")
    )
    (folder / "photo.png").write_bytes(np_picture())
    evaluate.main(["--run", str(folder / "run")])
    calibrate.main(["--run", str(folder / "run"), "--min-positives", "1"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [22, 1000])
def test_a_damaged_file_is_read_right_or_named(whole, count):
    rng = np.random.default_rng(count)
    failures, codes = [], collections.Counter()
    with Asker(whole) as asker:
        answers = {command: asker.ask(command) for command in COMMANDS}
        assert {name: answer[:2] for name, answer in answers.items()} == dict.fromkeys(COMMANDS, (0, ""))
        for i in range(count):
            name = list(READERS)[i % len(READERS)]
            command = str(rng.choice(READERS[name]))
            with damaged(whole, name, rng) as (what, differs):
                code, said, answer = asker.ask(command)
            codes[code] += 1
            may_differ = Path(name).name in MAY_DIFFER or (name, command) == SHOWN
            right = code == 0 and (answer == answers[command][2] or (differs and may_differ))
            if not right and not (code == 2 and Path(name).name in said and "\n" not in said.strip()):
                failures.append(f"{i}: {name} {what}, {command}: {code} {said[-300:]}")
    print(dict(codes), *failures, sep="\n")
    assert not failures
    assert codes[2] > count / 3


@pytest.mark.slow
def test_a_command_that_hangs_or_dies_is_found(whole):
    with Asker(whole, seconds=1) as asker:
        assert asker.ask("hang")[:2] == (-24, "it hangs or died")
        assert asker.ask("die")[:2] == (-6, "it hangs or died")
        assert asker.ask("compare")[0] == 0


@contextlib.contextmanager
def damaged(whole, name, rng):
    """The file is damaged inside the block; yields what was done, and whether it says something else now."""
    path = whole / name
    content = path.read_bytes()
    before = meaning(path)
    what = corrupt(path, rng)
    try:
        yield what, meaning(path) != before
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def meaning(path):
    """What a text file says, or None: two files of one meaning differ in spaces or the like."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 10**6:
        return None
    try:
        text = path.read_text()
        if path.suffix == ".json":
            return repr(json.loads(text))
        return repr(yaml.safe_load(text)) if path.suffix == ".yaml" and "&a9" not in text else text
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


def np_picture():
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()
