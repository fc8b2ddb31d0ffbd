"""The small files of a run folder: written, and read where they are what was written."""

import json
from pathlib import Path

import pytest

from mcar_tf.runs.folder import (
    MARKS,
    append_history,
    command_on,
    read_classes,
    read_environment,
    read_run_config,
    write_history,
)


def test_history_is_rewritten_as_of_the_state_and_then_grows(tmp_path):
    file = tmp_path / "history.csv"
    append_history(file, {"epoch": 1, "loss": 0.5})
    append_history(file, {"epoch": 2, "loss": 0.25})
    write_history(file, [{"epoch": 1, "loss": 0.5}])
    append_history(file, {"epoch": 2, "loss": 0.125})
    assert file.read_text() == "epoch,loss\n1,0.5\n2,0.125\n"


def test_a_command_on_a_folder_can_be_pasted():
    assert command_on(Path("runs/my run"), "evaluate") == "python -m mcar_tf.evaluate --run 'runs/my run'"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the marks of a run, of a version that noted no hashes."""
    for name, text in zip(MARKS, ("dataset: digits\n", "cat\n", '{"mcar_tf": "0.1"}'), strict=True):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_names_are_split_at_line_feeds_alone(folder):
    odd = ("a\u2028b", "c\x85d", "e\vf", "g\rh", "i\x1cj", " k ")
    (folder / "classes.txt").write_bytes("".join(f"{name}\n" for name in odd).encode())
    assert read_classes(folder) == odd


def test_names_in_another_order_are_refused(folder):
    import hashlib

    hashed = hashlib.sha256(b"cat\ndog\n").hexdigest()
    (folder / "environment.json").write_text(json.dumps({"mcar_tf": "0.1", "classes": hashed}))
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert read_classes(folder) == ("cat", "dog")
    (folder / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(ValueError, match=r"classes\.txt is not what the run was started with"):
        read_classes(folder)


@pytest.mark.parametrize("name", MARKS)
def test_a_folder_without_one_of_the_marks_is_no_run(folder, name):
    assert read_run_config(folder).dataset == "digits"
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is not a run folder: it holds no {name}"):
        read_run_config(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON"),
        ("[]", "it must hold an object"),
        ('{"data": 3}', "`data` must be a text. It is 3"),
        ('{"classes": []}', r"`classes` must be a text. It is \[\]"),
        ("[" * 10**6, "it is nested too deep"),
        ("\x00", "it is not JSON"),
    ],
)
def test_a_damaged_environment_is_named(folder, text, message):
    (folder / "environment.json").write_text(text)
    with pytest.raises(ValueError, match=rf"environment\.json is damaged: {message}"):
        read_environment(folder)
