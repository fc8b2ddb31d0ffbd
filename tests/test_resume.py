"""A run that is stopped anywhere and resumed is the run that was not stopped, bit for bit."""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mcar_tf import callbacks, checkpoints, fit, training
from mcar_tf.config import FitConfig
from mcar_tf.signals import Stopping
from pipelines.records import load_manifest

ROOT = Path(__file__).parent.parent
TIMINGS = {"images_per_second", "seconds"}


class Cut(BaseException):
    """The power is gone: nothing catches it."""


@pytest.fixture
def options(tiny_set) -> dict:
    """Of a tiny run: 4 steps an epoch, with all that has a state."""
    return {
        "dataset": "tiny",
        "data_dir": tiny_set,
        "backbone": "tiny_resnet",
        "backbone_width": 0.25,
        "weights": "none",
        "image_size": 32,
        "batch_size": 4,
        "epochs": 3,
        "drop_epochs": [1],
        "top_n": 2,
        "ema_decay": 0.5,
    }


@pytest.fixture
def start(options):
    """Bring a run to its end, or to its next cut, in this process."""

    def start(folder: Path, stopping: Stopping | None = None, **more) -> None:
        config = FitConfig(**options, **more, out_dir=folder, resume=True)
        fit.fit(config, folder, load_manifest(config.data_dir, config.dataset), stopping or Stopping())

    return start


@pytest.fixture
def launch(options):
    """The same by its command, in a process of its own."""

    def launch(folder: Path, **more) -> subprocess.Popen:
        words = [sys.executable, "-m", "mcar_tf.fit", "--resume", "--out-dir", folder]
        for name, value in (options | more).items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *values]
        return subprocess.Popen(
            [str(word) for word in words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return launch


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def undisturbed(shared, start) -> Path:
    if not (shared / "undisturbed").is_dir():
        start(shared / "undisturbed")
    return shared / "undisturbed"


def read_weights(file: Path) -> dict[str, np.ndarray]:
    import h5py

    found = {}
    with h5py.File(file) as content:
        content.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found


def read_variables(run: Path) -> dict[str, np.ndarray]:
    """All that the newest checkpoint of a run holds: weights, optimizer, averages, running means."""
    import tensorflow as tf

    newest = sorted((run / "checkpoints").glob("epoch-*"))[-1] / "variables"
    return {
        name: tf.train.load_variable(str(newest), name) for name, _ in tf.train.list_variables(str(newest))
    }


def assert_same_run(run: Path, other: Path) -> None:
    for file in ("last.weights.h5", "best.weights.h5"):
        a, b = (read_weights(r / "checkpoints" / file) for r in (run, other))
        assert a.keys() == b.keys()
        assert len(a) > 20
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{file}: {name}")
    a, b = read_variables(run), read_variables(other)
    assert a.keys() == b.keys()
    for name in a.keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert history_of(run) == history_of(other)
    assert (run / "metrics.json").read_text() == (other / "metrics.json").read_text()


def history_of(run: Path) -> list[dict[str, str]]:
    """Rows of `history.csv` without what a clock says."""
    with (run / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


def cut_after(monkeypatch, owner, name: str, calls: int) -> None:
    """Let `calls` calls of a function return; the next one is cut off before it begins."""
    real, left = getattr(owner, name), [calls]

    def counted(*args, **kwargs):
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


# What an epoch flushes to the disk: 0 best, 1 last weights, 2-5 and 6 a checkpoint's files and folder, 7 the folder
# that it is renamed into.
CUTS = {
    "in the first epoch, after 2 steps": (callbacks.StepGuard, "on_train_batch_end", 2),
    "before the best weights are in place": (checkpoints, "_flush_to_disk", 0),
    "between last weights and history": (training, "append_history", 0),
    "amid a checkpoint": (checkpoints, "_flush_to_disk", 4),
    "between a checkpoint and the end of the one before": (checkpoints, "_flush_to_disk", 7),
    "before the final metrics": (training, "write_text", 0),
}


def test_cuts_leave_no_trace(start, undisturbed, tmp_path, monkeypatch):
    run = tmp_path / "run"
    for owner, name, calls in CUTS.values():
        with monkeypatch.context() as patch:
            cut_after(patch, owner, name, calls)
            with pytest.raises(Cut):
                start(run, keep_checkpoints=1)
    start(run, keep_checkpoints=1)
    assert_same_run(run, undisturbed)


def stop_somewhere(process: subprocess.Popen, run: Path, how: str, wait: float) -> int:
    """Let a run save something, then end it: `kill`, `terminate`, or kill `amid a checkpoint`; its exit code.

    Args:
        process: of the run.
        run: its folder.
        how: see above.
        wait: seconds after the first new checkpoint.
    """
    before = set(run.glob("checkpoints/epoch-*"))
    while process.poll() is None and not set(run.glob("checkpoints/epoch-*")) - before:
        time.sleep(0.01)
    time.sleep(wait)
    if how == "amid a checkpoint":
        while process.poll() is None and not any(run.glob("checkpoints/partial-epoch-*")):
            pass
    process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL, 143), errors[-2000:]
    return process.returncode


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]


def test_killed_and_terminated_processes_leave_no_trace(launch, undisturbed, tmp_path):
    run = tmp_path / "run"
    every_step = {"checkpoint_minutes": 1e-6}
    assert stop_somewhere(launch(run, **every_step), run, "terminate", 0) == 143
    assert stop_somewhere(launch(run, **every_step), run, "amid a checkpoint", 0) == -signal.SIGKILL
    finish(launch(run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(launch, tmp_path):
    longer = {"epochs": 20}
    finish(launch(tmp_path / "undisturbed", **longer))
    run = tmp_path / "run"
    rng = random.Random(0)
    ways = ["kill"] * 10 + ["terminate"] * 5 + ["amid a checkpoint"] * 5
    rng.shuffle(ways)
    codes = [
        stop_somewhere(launch(run, **longer, checkpoint_minutes=1e-6), run, how, rng.uniform(0, 0.3))
        for how in ways
    ]
    assert codes.count(0) == 0, "the run was over before it could be killed"
    assert not (run / "metrics.json").exists()
    finish(launch(run, **longer))
    assert_same_run(run, tmp_path / "undisturbed")
