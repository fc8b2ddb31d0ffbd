"""A checkpoint is there whole or not at all, and a broken one is never restored."""

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.training.checkpoints import Checkpoints, find_checkpoint
from mcar_tf.training.state import RunState
from pipelines.command import describe_error
from pipelines.files import partial_path

SCRIPT = Path(__file__).parent.parent / "helpers" / "full_disk.py"


@pytest.fixture
def variables() -> list[keras.Variable]:
    return [keras.Variable(np.zeros((40, 50), np.float32)), keras.Variable(0, dtype="int64", trainable=False)]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(variables, tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", variables, keep=2)


def save(checkpoints: Checkpoints, variables: list[keras.Variable], epoch: int, step: int = 0) -> None:
    """Save a checkpoint whose every value is its epoch."""
    for variable in variables:
        variable.assign(np.full(variable.shape, epoch))
    checkpoints.save(epoch, step, {"epoch": epoch, "history": [{"loss": 0.1}]})


def restore_latest(checkpoints: Checkpoints, said: list[str] | None = None) -> dict | None:
    """Restore the newest whole checkpoint, as a run does that goes on."""
    found = find_checkpoint(checkpoints.folder, said.append if said is not None else pytest.fail)
    return checkpoints.restore(found) if found else None


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_is_restored_and_the_last_two_are_kept(checkpoints, variables):
    assert restore_latest(checkpoints) is None
    for epoch, step in ((1, 0), (2, 30), (3, 4)):
        save(checkpoints, variables, epoch, step)
    variables[0].assign(np.zeros((40, 50)))
    assert restore_latest(checkpoints) == {"epoch": 3, "history": [{"loss": 0.1}]}
    assert float(variables[0].value[7, 7]) == int(variables[1].value) == 3
    assert names(checkpoints) == ["epoch-0002-step-0000030", "epoch-0003-step-0000004"]


def test_a_step_that_was_saved_is_left_alone(checkpoints, variables):
    save(checkpoints, variables, 1, 4)
    save(checkpoints, variables, 1, 4)
    assert names(checkpoints) == ["epoch-0001-step-0000004"]
    assert restore_latest(checkpoints) == {"epoch": 1, "history": [{"loss": 0.1}]}


def damage(path: Path, rng: random.Random) -> None:
    """One random misfortune in a checkpoint's folder."""
    file = rng.choice(sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    misfortune = rng.choice(["truncate", "flip a bit", "delete", "empty", "swap bytes"])
    if misfortune == "delete":
        file.unlink()
        return
    if misfortune == "truncate":
        content = content[: rng.randrange(len(content))]
    elif misfortune == "empty":
        content = bytearray()
    elif misfortune == "flip a bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        place = rng.randrange(len(content) - 1)
        if content[place] == content[place + 1]:
            content[place] ^= 255
        content[place], content[place + 1] = content[place + 1], content[place]
    file.write_bytes(content)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(checkpoints, variables, said, seed):
    save(checkpoints, variables, 1)
    save(checkpoints, variables, 2)
    damage(checkpoints.folder / "epoch-0002-step-0000000", random.Random(seed))
    assert restore_latest(checkpoints, said) == {"epoch": 1, "history": [{"loss": 0.1}]}
    assert float(tf.reduce_min(variables[0].value)) == float(tf.reduce_max(variables[0].value)) == 1
    assert int(variables[1].value) == 1
    assert len(said) == 1
    assert said[0].startswith("checkpoint epoch-0002-step-0000000 is broken (")
    assert "broken-epoch-0002-step-0000000" in names(checkpoints)
    # The run comes there again.
    save(checkpoints, variables, 2)
    assert restore_latest(checkpoints)["epoch"] == 2


def test_a_checkpoint_on_a_bad_sector_is_set_aside_too(checkpoints, variables, said, monkeypatch):
    save(checkpoints, variables, 1)
    save(checkpoints, variables, 2)
    real = hashlib.file_digest

    def bad_sector(file, digest):
        if "epoch-0002" in file.name and "variables.data" in file.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", bad_sector)
    assert restore_latest(checkpoints, said)["epoch"] == 1
    assert "is broken (it can't be read: Input/output error)" in said[0]


def test_a_changed_number_in_the_state_is_damage(checkpoints, variables, said):
    save(checkpoints, variables, 1)
    state = checkpoints.folder / "epoch-0001-step-0000000" / "state.json"
    state.write_text(state.read_text().replace("0.1", "0.3"))
    assert restore_latest(checkpoints, said) is None
    assert "state.json is damaged" in said[0]


def test_what_a_killed_process_left_is_taken_away(checkpoints, variables):
    save(checkpoints, variables, 1)
    partial_path(checkpoints.folder / "epoch-0002-step-0000000").mkdir()
    partial_path(checkpoints.folder / "last.weights.h5").write_bytes(b"half")
    assert restore_latest(checkpoints)["epoch"] == 1
    assert names(checkpoints) == ["epoch-0001-step-0000000"]


def test_a_checkpoint_of_another_model_is_refused_and_stays(checkpoints, variables, tmp_path):
    save(checkpoints, variables, 1)
    other_shape = keras.Variable(np.zeros((40, 51), np.float32))
    for others in ([*variables, other_shape], variables[:1], [other_shape, variables[1]]):
        with pytest.raises(ValueError, match="another model or optimizer"):
            restore_latest(Checkpoints(checkpoints.folder, others))
        assert names(checkpoints) == ["epoch-0001-step-0000000"]


def test_no_room_is_found_out_before_anything_is_written(checkpoints, variables, monkeypatch):
    save(checkpoints, variables, 1)
    usage = shutil.disk_usage(checkpoints.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8000))
    with pytest.raises(OSError, match="No space left on device") as caught:
        save(checkpoints, variables, 2)
    code, line = describe_error(caught.value)
    assert (code, line) == (
        1,
        f"error: the disk is full while writing {checkpoints.folder}."
        " Free some space and run the same command again.",
    )
    assert names(checkpoints) == ["epoch-0001-step-0000000"]


def test_a_disk_that_fills_amid_a_checkpoint_leaves_the_one_before(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path]
    done = subprocess.run(
        command, cwd=SCRIPT.parent.parent.parent, capture_output=True, text=True, check=True
    )
    checkpoint, weights, files, restored = done.stdout.splitlines()
    assert checkpoint.startswith("error: the disk is full while writing ")
    assert weights.startswith("error: the disk is full while writing ")
    assert files == "epoch-0001-step-0000000 last.weights.h5 last.weights.h5.sha256"
    assert restored == "{'epoch': 1}"


def test_more_epochs_than_four_digits_hold_are_in_order(checkpoints, variables):
    for epoch in (9999, 10000):
        save(checkpoints, variables, epoch)
    assert restore_latest(checkpoints)["epoch"] == 10000
    assert checkpoints.latest().name == "epoch-10000-step-0000000"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "2"}, "`epoch` can't be 2"),
        ({"epoch": -1}, "`epoch` can't be -1"),
        ({"steps": 2**60}, "`steps` can't be 1152921504606846976"),
        ({"steps": True}, "`steps` can't be True"),
        ({"history": [1]}, r"`history` can't be \[1\]"),
        ({"history": None}, "`history` can't be None"),
        ({"best": {"epoch": 1}}, r"`best` can't be \{'epoch': 1\}"),
    ],
)
def test_a_state_that_is_none_is_named(change, message):
    state = {"epoch": 1, "steps": 0, "history": [{"epoch": 1}], "best": None}
    assert RunState.read(state, "x").epoch == 1
    with pytest.raises(ValueError, match=f"state.json is damaged: {message}"):
        RunState.read(state | change, "checkpoints/epoch-0001-step-0000000/state.json")
