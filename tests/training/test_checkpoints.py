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

from mcar_tf.training.checkpoints import Checkpoints
from pipelines.command import describe_error
from pipelines.files import partial_path


@pytest.fixture
def variables() -> list[keras.Variable]:
    return [keras.Variable(np.zeros((40, 50), np.float32)), keras.Variable(0, dtype="int64", trainable=False)]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(variables, said, tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", variables, keep=2, warn=said.append)


def save(checkpoints: Checkpoints, variables: list[keras.Variable], epoch: int, step: int = 0) -> None:
    """Save a checkpoint whose every value is its epoch."""
    for variable in variables:
        variable.assign(np.full(variable.shape, epoch))
    checkpoints.save(epoch, step, {"epoch": epoch, "history": [{"loss": 0.1}]})


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_is_restored_and_the_last_two_are_kept(checkpoints, variables):
    assert checkpoints.restore_latest() is None
    for epoch, step in ((1, 0), (2, 30), (3, 4)):
        save(checkpoints, variables, epoch, step)
    variables[0].assign(np.zeros((40, 50)))
    assert checkpoints.restore_latest() == {"epoch": 3, "history": [{"loss": 0.1}]}
    assert float(variables[0].value[7, 7]) == int(variables[1].value) == 3
    assert names(checkpoints) == ["epoch-0002-step-0000030", "epoch-0003-step-0000004"]


def test_a_step_that_was_saved_is_left_alone(checkpoints, variables):
    save(checkpoints, variables, 1, 4)
    save(checkpoints, variables, 1, 4)
    assert names(checkpoints) == ["epoch-0001-step-0000004"]
    assert checkpoints.restore_latest() == {"epoch": 1, "history": [{"loss": 0.1}]}


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
    assert checkpoints.restore_latest() == {"epoch": 1, "history": [{"loss": 0.1}]}
    assert float(tf.reduce_min(variables[0].value)) == float(tf.reduce_max(variables[0].value)) == 1
    assert int(variables[1].value) == 1
    assert len(said) == 1
    assert said[0].startswith("checkpoint epoch-0002-step-0000000 is broken (")
    assert "broken-epoch-0002-step-0000000" in names(checkpoints)
    # The run comes there again.
    save(checkpoints, variables, 2)
    assert checkpoints.restore_latest()["epoch"] == 2


def test_a_checkpoint_on_a_bad_sector_is_set_aside_too(checkpoints, variables, said, monkeypatch):
    save(checkpoints, variables, 1)
    save(checkpoints, variables, 2)
    real = hashlib.file_digest

    def bad_sector(file, digest):
        if "epoch-0002" in file.name and "variables.data" in file.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", bad_sector)
    assert checkpoints.restore_latest()["epoch"] == 1
    assert "is broken (it can't be read: Input/output error)" in said[0]


def test_a_changed_number_in_the_state_is_damage(checkpoints, variables, said):
    save(checkpoints, variables, 1)
    state = checkpoints.folder / "epoch-0001-step-0000000" / "state.json"
    state.write_text(state.read_text().replace("0.1", "0.3"))
    assert checkpoints.restore_latest() is None
    assert "state.json is damaged" in said[0]


def test_what_a_killed_process_left_is_taken_away(checkpoints, variables):
    save(checkpoints, variables, 1)
    partial_path(checkpoints.folder / "epoch-0002-step-0000000").mkdir()
    partial_path(checkpoints.folder / "last.weights.h5").write_bytes(b"half")
    assert checkpoints.restore_latest()["epoch"] == 1
    assert names(checkpoints) == ["epoch-0001-step-0000000"]


def test_a_checkpoint_of_another_model_is_refused_and_stays(checkpoints, variables, tmp_path):
    save(checkpoints, variables, 1)
    other_shape = keras.Variable(np.zeros((40, 51), np.float32))
    for others in ([*variables, other_shape], variables[:1], [other_shape, variables[1]]):
        with pytest.raises(ValueError, match="another model or optimizer"):
            Checkpoints(checkpoints.folder, others).restore_latest()
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


def test_a_disk_that_fills_amid_a_checkpoint_leaves_the_one_before():
    # A limit on the size of a file is the full disk that a test can have; it is for good, hence another process.
    code = """
import resource, signal, sys, tempfile
import keras, numpy as np
from pathlib import Path
from mcar_tf.training.checkpoints import Checkpoints, write_weights
from pipelines.files import partial_path
from pipelines.command import describe_error
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(tempfile.mkdtemp())
model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300)])
checkpoints = Checkpoints(folder, model.variables)
checkpoints.save(1, 0, {"epoch": 1})
write_weights(model, folder / "last.weights.h5")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for write in (lambda: checkpoints.save(2, 0, {}), lambda: write_weights(model, folder / "last.weights.h5")):
    try:
        write()
    except OSError as error:
        print(describe_error(error)[1])
print(*sorted(path.name for path in folder.iterdir()))
print(checkpoints.restore_latest(), model.load_weights(folder / "last.weights.h5"))
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    checkpoint, weights, files, restored = done.stdout.splitlines()
    assert checkpoint.startswith("error: the disk is full while writing ")
    assert weights.startswith("error: the disk is full while writing ")
    assert files == "epoch-0001-step-0000000 last.weights.h5"
    assert restored == "{'epoch': 1} None"
