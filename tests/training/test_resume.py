"""A run that is stopped anywhere and resumed is the run that was not stopped, bit for bit."""

import contextlib
import csv
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mcar_tf.config import FitConfig
from mcar_tf.models.backbones import build_tiny_resnet
from mcar_tf.runs import weights
from mcar_tf.training import callbacks, checkpoints
from mcar_tf.training import loop as training
from mcar_tf.training.run import run_to_end
from mcar_tf.training.signals import Stopping, stop_between_steps
from mcar_tf.training.workers import OneProcess
from pipelines.command import Terminated, describe_error
from pipelines.manifest import load_manifest

ROOT = Path(__file__).parent.parent.parent
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
        config = FitConfig(**(options | more), out_dir=folder, resume=True)
        manifest = load_manifest(config.data_dir, config.dataset)
        run_to_end(config, folder, manifest, stopping or Stopping(), OneProcess())

    return start


@pytest.fixture
def launch(options):
    """The same by its command, in a process of its own."""

    def launch(folder: Path, **more) -> subprocess.Popen:
        words = [sys.executable, "-m", "mcar_tf.fit", "--recipe", "paper", "--resume", "--out-dir", folder]
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


# A checkpoint flushes its four files (0-3), its folder (4) and the one that it is renamed into (5) to the disk.
# Weights write their checksum, the best's (0) and the last's (2), and once they are in place write it again (1, 3).
CUTS = {
    "in the first epoch, after 2 steps": (callbacks.StepGuard, "on_train_batch_end", 2),
    "before the best weights are in place": (weights, "write_bytes", 0),
    "between the last weights and their checksum": (weights, "write_text", 3),
    "between last weights and history": (training, "append_history", 0),
    "amid a checkpoint": (checkpoints, "flush_to_disk", 3),
    "between a checkpoint and the end of the one before": (checkpoints, "flush_to_disk", 5),
    "before the final metrics": (training, "write_metrics", 0),
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


@pytest.mark.slow
def test_jitter_and_each_streams_statistics_go_on_as_if_nothing_had_been(start, tmp_path, monkeypatch):
    more = {
        "epochs": 2, "box_jitter": 0.3, "batch_norm": "per_stream", "fusion": "mean", "schedule": "one_cycle",
        "drop_epochs": [30, 50], "image_size": 32, "glance_size": 16, "distill": 0.5,
        "one_look_share": 0.5,
    }  # fmt: skip
    start(tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        cut_after(patch, callbacks.StepGuard, "on_train_batch_end", 2)
        with pytest.raises(Cut):
            start(tmp_path / "cut", checkpoint_minutes=1e-6, **more)
    assert any((tmp_path / "cut" / "checkpoints").glob("epoch-0000-step-*"))
    start(tmp_path / "cut", **more)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    local_losses = [row["local_loss"] for row in history_of(tmp_path / "whole")]
    assert local_losses[0] == ""
    assert float(local_losses[1]) > 0.0


@pytest.mark.slow
def test_a_checkpoint_makes_first_weights_needless(start, options, tmp_path, monkeypatch):
    # A run from weights of another run, and one from a file; both are gone when the run is gone on with.
    start(tmp_path / "other", epochs=1)
    file = tmp_path / "backbone.weights.h5"
    build_tiny_resnet(options.get("backbone_width", 1.0)).save_weights(file)
    for name, more in {"a": {"init_from": tmp_path / "other"}, "b": {"weights": str(file)}}.items():
        with monkeypatch.context() as patch:
            cut_after(patch, callbacks.StepGuard, "on_train_batch_end", 5)  # amid the second epoch
            with pytest.raises(Cut):
                start(tmp_path / name, **more)
    file.unlink()
    shutil.rmtree(tmp_path / "other")
    for name, more in {"a": {"init_from": tmp_path / "other"}, "b": {"weights": str(file)}}.items():
        FitConfig(**(options | more), out_dir=tmp_path / name, resume=True).check()
        start(tmp_path / name, **more)
        assert len(history_of(tmp_path / name)) == 3
        with pytest.raises(FileNotFoundError, match=r"other is not a run folder|existing file"):
            start(tmp_path / "anew", **more)
    assert not (tmp_path / "anew").exists()


def stop_somewhere(process: subprocess.Popen, run: Path, how: str, checkpoints: int, moment: float) -> int:
    """Let a run that saves after each step go on for a while, then end it; its exit code.

    Args:
        process: of the run.
        run: its folder.
        how: `kill`, `terminate`, or kill `amid a checkpoint`.
        checkpoints: new ones to wait for.
        moment: then wait for this share of the time between two, in [0, 1).
    """
    seen, times = set(run.glob("checkpoints/epoch-*")), [time.monotonic()]
    while process.poll() is None and len(times) <= checkpoints:
        if new := set(run.glob("checkpoints/epoch-*")) - seen:
            seen |= new
            times.append(time.monotonic())
    time.sleep(moment * min(1.0, times[-1] - times[-2]))
    while how == "amid a checkpoint" and process.poll() is None:
        if any(run.glob("checkpoints/partial-*-epoch-*")):
            # Stand still, and see whether it is still being written: no kill can come too late then.
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if any(run.glob("checkpoints/partial-*-epoch-*")):
                break
            process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL, 143), errors[-2000:]
    return process.returncode


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]


@pytest.mark.slow
def test_killed_and_terminated_processes_leave_no_trace(launch, undisturbed, tmp_path):
    run = tmp_path / "run"
    every_step = {"checkpoint_minutes": 1e-6}
    assert stop_somewhere(launch(run, **every_step), run, "terminate", 1, 0) == 143
    assert stop_somewhere(launch(run, **every_step), run, "amid a checkpoint", 1, 0) == -signal.SIGKILL
    assert any(run.glob("checkpoints/partial-*-epoch-*"))
    finish(launch(run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("amid", ["predict_dataset", "evaluate_predictions", "append_history"])
def test_a_signal_amid_validation_or_writing_saves_the_epoch(start, undisturbed, tmp_path, monkeypatch, amid):
    real = getattr(training, amid)

    def signalled(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    run = tmp_path / "run"
    saved = "epoch-0001-step-0000000" if amid == "append_history" else "epoch-0000-step-0000004"
    # Twice amid the first validation: the second time nothing has happened since the checkpoint.
    for _ in range(1 if amid == "append_history" else 2):
        with monkeypatch.context() as patch, stop_between_steps() as stopping:
            patch.setattr(training, amid, signalled)
            with pytest.raises(Terminated):
                start(run, stopping)
        assert [path.name for path in run.glob("checkpoints/epoch-*")] == [saved]
    start(run)
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adamw", "accumulate_steps": 3, "clip_norm": 0.5, "low_memory": True},
        {"precision": "mixed_float16", "freeze_backbone_epochs": 1, "learning": "single"},
    ],
    ids=lambda recipe: " ".join(recipe),
)
def test_other_recipes_leave_no_trace_either(start, undisturbed, tmp_path, monkeypatch, recipe):
    if "freeze_backbone_epochs" in recipe:
        recipe = recipe | {"init_from": undisturbed}
    start(tmp_path / "whole", **recipe)
    for step in (2, 3):  # the second cut is in the second epoch, where the backbone is no longer frozen
        with monkeypatch.context() as patch:
            cut_after(patch, callbacks.StepGuard, "on_train_batch_end", step)
            with pytest.raises(Cut):
                start(tmp_path / "cut", checkpoint_minutes=1e-6, **recipe)
    start(tmp_path / "cut", **recipe)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_stops_a_run_with_one_line_and_room_lets_it_go_on(launch, undisturbed, tmp_path):
    run = tmp_path / "run"
    every_step = {"checkpoint_minutes": 1e-6}
    assert stop_somewhere(launch(run, **every_step), run, "terminate", 1, 0) == 143
    # A limit on the size of a file is the full disk that a test can have.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        full = launch(run, **every_step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    _, errors = full.communicate(timeout=300)
    assert full.returncode == 1
    assert errors.splitlines()[-1].startswith("error: the disk is full while writing ")
    finish(launch(run))
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_twenty_full_disks_at_random_moments_leave_no_trace(start, undisturbed, tmp_path, monkeypatch):
    """From one of the flushes of checkpoints, weights and tables on, the disk has room for little more."""
    rng, limit, flush = random.Random(0), resource.getrlimit(resource.RLIMIT_FSIZE), os.fsync
    lines, run = [], tmp_path / "run-0"
    while len(lines) < 20:
        room, left = (rng.randrange(5_000, 150_000), limit[1]), [rng.randrange(60)]

        def counted(file, room=room, left=left):
            flush(file)
            left[0] -= 1
            if left[0] == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, room)

        # What the run says goes to no file, which would be full as well.
        printed = io.StringIO()
        try:
            with (
                monkeypatch.context() as patch,
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
            ):
                patch.setattr(os, "fsync", counted)
                start(run, checkpoint_minutes=1e-6)
        except OSError as error:
            lines.append(describe_error(error)[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if (run / "metrics.json").is_file():
            assert_same_run(run, undisturbed)
            run = tmp_path / f"run-{len(lines)}"
    assert [line for line in lines if not line.startswith("error: the disk is full while writing ")] == []
    start(run)
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_early_stopping_ends_a_run(start, tmp_path):
    start(tmp_path / "run", epochs=30, early_stopping_epochs=2, learning_rate=1e-12, head_learning_rate=1e-12)
    assert 3 <= len(history_of(tmp_path / "run")) < 30
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(launch, tmp_path):
    longer = {"epochs": 20}
    finish(launch(tmp_path / "undisturbed", **longer))
    run = tmp_path / "run"
    rng = random.Random(0)
    ways = ["kill"] * 10 + ["terminate"] * 5 + ["amid a checkpoint"] * 5
    rng.shuffle(ways)
    codes = [
        stop_somewhere(
            launch(run, **longer, checkpoint_minutes=1e-6), run, how, rng.choice([1, 2, 3]), rng.random()
        )
        for how in ways
    ]
    assert codes.count(0) == 0, "the run was over before it could be killed"
    assert not (run / "metrics.json").exists()
    finish(launch(run, **longer))
    assert_same_run(run, tmp_path / "undisturbed")
