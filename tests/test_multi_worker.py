"""Workers that talk to each other over this machine's own network train what one process trains."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mcar_tf.multi_worker import Worker, own_folder, read_worker

ROOT = Path(__file__).parent.parent


def tf_config(index: int, *ports: int, **changes) -> str:
    task = {"type": "worker", "index": index}
    content = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}, "task": task}
    return json.dumps(content | changes)


def test_a_worker_reads_who_it_is(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(1, 2222, 2223, 2224))
    assert read_worker() == Worker(index=1, count=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        tf_config(2, 2222, 2223),
        tf_config(-1, 2222),
        tf_config(0, 2222, task={"type": "ps", "index": 0}),
        tf_config(0, 2222, cluster={"worker": ["no-port"]}),
    ],
)
def test_a_tf_config_that_says_no_such_thing_is_refused_with_one_that_does(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="needs TF_CONFIG in the environment, such as"):
        read_worker()


def test_the_chief_alone_writes_the_run_folder(tmp_path):
    with own_folder(Worker(0, 2), tmp_path / "run") as folder:
        assert folder == tmp_path / "run"
    with own_folder(Worker(1, 2), tmp_path / "run") as folder:
        folder.mkdir()
        assert not (tmp_path / "run").exists()
    assert not folder.exists()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def launch(tiny_set):
    """Start `fit` as so many workers; none: one process by itself."""

    def launch(run: Path, workers: int = 0, *more: str) -> list[subprocess.Popen]:
        words = [sys.executable, "-m", "mcar_tf.fit", "--resume", "--out-dir", run, *more]
        words += ["--dataset", "tiny", "--data-dir", tiny_set, "--backbone", "tiny_resnet"]
        words += ["--backbone-width", "0.25", "--weights", "none", "--image-size", "32", "--batch-size", "6"]
        # Regions that are whole images: another order of a sum can't move them by a pixel.
        words += ["--epochs", "3", "--top-n", "2", "--tau", "0"]
        if not workers:
            return [subprocess.Popen([str(w) for w in words], cwd=ROOT, stderr=subprocess.PIPE, text=True)]
        # BatchNorm that sees the batch which one process would see.
        words += ["--strategy", "multi_worker", "--sync-batch-norm"]
        ports = free_ports(workers)
        return [
            subprocess.Popen(
                [str(w) for w in words],
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": tf_config(i, *ports)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(workers)
        ]

    return launch


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-2000:]


def read_result(run: Path) -> tuple[list[np.ndarray], list[dict]]:
    import h5py

    found: list[np.ndarray] = []
    with h5py.File(run / "checkpoints" / "last.weights.h5") as file:
        for part in ("backbone", "classifier"):
            file[part].visititems(
                lambda name, item: found.append(item[()]) if hasattr(item, "shape") else None
            )
    newest = sorted(run.glob("checkpoints/epoch-*"))[-1]
    return found, json.loads((newest / "state.json").read_text())["history"]


def assert_same_result(run: Path, other: Path, tolerance: float) -> None:
    (a, history), (b, other_history) = read_result(run), read_result(other)
    assert len(a) == len(b) > 20
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)
    for row, other_row in zip(history, other_history, strict=True):
        for name in ("loss", "global_loss", "local_loss"):
            assert row[name] == pytest.approx(other_row[name], abs=tolerance / 10)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_train_what_one_process_trains(launch, tmp_path, workers):
    finish(launch(tmp_path / "one"))
    finish(launch(tmp_path / "several", workers))
    assert_same_result(tmp_path / "several", tmp_path / "one", 1e-4)


@pytest.mark.slow
def test_a_worker_is_killed_and_all_resume_to_the_same_result(launch, tmp_path):
    finish(launch(tmp_path / "undisturbed", 2))
    run = tmp_path / "run"
    workers = launch(run, 2, "--checkpoint-minutes", "0.000001")
    while not any(run.glob("checkpoints/epoch-*-step-0000001")):
        time.sleep(0.01)
        assert all(worker.poll() is None for worker in workers)
    workers[1].send_signal(signal.SIGKILL)
    _, errors = workers[0].communicate(timeout=300)
    workers[1].communicate()
    assert workers[0].returncode == 2
    assert "another worker ended or can't be reached. Start all workers again with --resume" in errors
    finish(launch(run, 2))
    assert_same_result(run, tmp_path / "undisturbed", 0)
