"""Damaged files of a run and of a set: the right answer and 0, or a line that names the file and 2.

At full size, 1,000 of them: `pytest -m slow tests/test_corruptions.py -k 1000`; `-s` shows each code's number.
"""

import collections
import contextlib
import io
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from corrupt import corrupt

from mcar_tf import calibrate, compare, evaluate, predict, report
from pipelines.command import describe_error

SECONDS = 60  # of computing, after which a command counts as hanging
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


class HangingError(BaseException):
    """A command did not end."""


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
    answers = {name: ask(name, whole) for name in MAINS}
    assert {name: answer[:2] for name, answer in answers.items()} == dict.fromkeys(MAINS, (0, ""))
    failures, codes = [], collections.Counter()
    for i in range(count):
        name = list(READERS)[i % len(READERS)]
        command = str(rng.choice(READERS[name]))
        with damaged(whole, name, rng) as (what, differs):
            try:
                code, said, answer = ask(command, whole)
            except HangingError:
                code, said, answer = -1, "it hangs", None
        codes[code] += 1
        right = code == 0 and (answer == answers[command][2] or (differs and Path(name).name in MAY_DIFFER))
        if not right and not (code == 2 and Path(name).name in said and "\n" not in said.strip()):
            failures.append(f"{i}: {name} {what}, {command}: {code} {said[-300:]}")
    print(dict(codes), *failures, sep="\n")
    assert not failures
    assert codes[2] > count / 3


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


def ask(command, whole):
    """Run a command on the folder as a process would: exit code, what it said of an error, its answer."""
    run, out = str(whole / "run"), whole / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = {
        "predict": ["--run", run, "--images", str(whole / "photo.png"), "--out-dir", str(out)],
        "evaluate": ["--run", run, "--out-dir", str(out)],
        "calibrate": ["--run", run],
        "report": ["--run", run, "--out", str(out / "report.html")],
        "compare": ["--runs", run, "--to", run, "--resamples", "100"],
    }[command]
    if command == "report":
        out.mkdir()
    before = (whole / "run" / "thresholds.json").read_bytes() if command == "calibrate" else b""
    said, printed = io.StringIO(), io.StringIO()
    with limited(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = 0
        try:
            MAINS[command](words)
        except SystemExit as error:
            code = error.code
        except Exception as error:
            code, line = describe_error(error)
            said.write(line)
    answer = {path.name: path.read_bytes() for path in sorted(out.glob("*"))}
    if command == "calibrate":
        answer = (whole / "run" / "thresholds.json").read_bytes()
        (whole / "run" / "thresholds.json").write_bytes(before)
    lines = [
        line for line in re.split(r"[\r\n]+", said.getvalue()) if "images/s]" not in line and line.strip()
    ]
    return code, "\n".join(lines), answer if command != "compare" else printed.getvalue()


MAINS = {m.__name__.rpartition(".")[2]: m.main for m in (predict, evaluate, calibrate, report, compare)}


@contextlib.contextmanager
def limited():
    def hang(signum, frame):
        raise HangingError

    previous = signal.signal(signal.SIGPROF, hang), signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)  # for what waits without computing
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        signal.signal(signal.SIGPROF, previous[0])
        signal.signal(signal.SIGALRM, previous[1])


def np_picture():
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()
