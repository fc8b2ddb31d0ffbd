"""The small files of a run folder: written, and read where they are what was written."""

import dataclasses
import json
from pathlib import Path

import pytest

from mcar_tf.config import FitConfig, config_to_yaml
from mcar_tf.runs.folder import (
    MARKS,
    append_history,
    command_on,
    is_complete,
    learnt_before,
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
        ('{"numpy": null}', "`numpy` must be a text. It is None"),
        ("[" * 10**6, "it is nested too deep"),
        ("\x00", "it is not JSON"),
    ],
)
def test_a_damaged_environment_is_named(folder, text, message):
    (folder / "environment.json").write_text(text)
    with pytest.raises(ValueError, match=rf"environment\.json is damaged: {message}"):
        read_environment(folder)


def made_run(folder, **options):
    """A run folder with nothing in it but what a run is known by."""
    for name in MARKS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "config.yaml").write_text(config_to_yaml(FitConfig(backbone="tiny_resnet", **options)))
    return folder


def test_what_runs_learnt_from_is_followed_through_their_first_weights(tmp_path):
    first = made_run(tmp_path / "first", dataset="photos", fold=1, eval_split="fold1")
    second = made_run(tmp_path / "second", dataset="others", init_from=first)
    third = FitConfig(dataset="photos", fold=2, eval_split="fold2", init_from=second)
    assert learnt_before(third, "fold2") == first
    assert learnt_before(third, "fold1") is None  # the one fold that the first run did not learn from
    assert learnt_before(third, "test") is None
    assert learnt_before(FitConfig(dataset="photos", init_from=tmp_path / "gone"), "fold2") is None


def test_parts_of_what_a_run_learnt_from_are_learnt(tmp_path):
    whole = made_run(tmp_path / "whole", dataset="voc2007", train_split="train", eval_split="test")
    part = FitConfig(dataset="voc2007", train_split="devkit_train", eval_split="devkit_val", init_from=whole)
    assert learnt_before(part, "devkit_val") == whole
    assert learnt_before(part, "test") is None


def test_a_held_out_split_was_learnt_from_by_a_run_that_held_out_others(tmp_path):
    alike = made_run(tmp_path / "alike", dataset="photos", val_fraction=0.2, seed=1)
    whole = made_run(tmp_path / "whole", dataset="photos", seed=1)
    again = FitConfig(dataset="photos", val_fraction=0.2, seed=1, init_from=alike)
    assert learnt_before(again, "validation") is None
    assert learnt_before(dataclasses.replace(again, seed=2), "validation") == alike
    assert learnt_before(dataclasses.replace(again, val_fraction=0.1), "validation") == alike
    assert learnt_before(dataclasses.replace(again, init_from=whole), "validation") == whole
    assert learnt_before(dataclasses.replace(again, train_split="more"), "validation") is None
    own = FitConfig(dataset="photos", init_from=whole)  # the set's own validation split
    assert learnt_before(own, "validation") is None


@pytest.mark.parametrize(("fold", "learnt"), [(1, True), (2, False)])
def test_a_held_out_split_of_folds_was_learnt_from_in_another_fold(tmp_path, fold, learnt):
    before = made_run(tmp_path / "before", dataset="photos", fold=2, val_fraction=0.2)
    config = FitConfig(dataset="photos", fold=fold, val_fraction=0.2, init_from=before)
    assert (learnt_before(config, "validation") == before) == learnt


def test_a_run_with_metrics_is_complete(tmp_path):
    assert not is_complete(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    assert is_complete(tmp_path)


def test_what_has_the_place_of_the_metrics_is_named(tmp_path):
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(
        ValueError, match=r"metrics\.json is not a file\. Put the run's own metrics\.json back"
    ):
        is_complete(tmp_path)
    (tmp_path / "metrics.json").rmdir()
    (tmp_path / "metrics.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"metrics\.json is a link that leads nowhere\."):
        is_complete(tmp_path)
