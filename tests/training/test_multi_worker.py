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
from test_distribution import assert_same_training

from mcar_tf.training.multi_worker import (
    Worker,
    find_differences,
    own_folder,
    read_worker,
    tf_config_of_slurm,
)

ROOT = Path(__file__).parent.parent.parent


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


def slurm(nodes: str, tasks_per_node: str, node: str, local_id: int, **more: str) -> dict[str, str]:
    """What `srun` puts into the environment of a task."""
    return {
        "SLURM_JOB_ID": "12345",
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks_per_node,
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURMD_NODENAME": node,
        "SLURM_LOCALID": str(local_id),
        "SLURM_PROCID": "0",
    } | more


def test_slurm_tells_a_worker_who_it_is(monkeypatch):
    # Ranks would have n9 first. The resolver sorts as words: each must find itself at its own address.
    for node, local_id, index in (("n9", 0, 2), ("n10", 0, 0), ("n10", 1, 1)):
        for name, value in slurm("n[9-10]", "1,2", node, local_id).items():
            monkeypatch.setenv(name, value)
        content = json.loads(tf_config_of_slurm())
        assert content["cluster"] == {"worker": ["n10:22345", "n10:22346", "n9:22345"]}
        assert content["task"] == {"type": "worker", "index": index}


def test_tf_config_goes_before_slurm(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(0, 2222))
    for name, value in slurm("n[9-10]", "1,2", "n10", 1).items():
        monkeypatch.setenv(name, value)
    assert read_worker() == Worker(0, 1)


@pytest.mark.parametrize("change", [{"SLURMD_NODENAME": "n11"}, {"SLURM_STEP_NUM_TASKS": "x"}])
def test_a_step_of_slurm_that_contradicts_itself_is_refused(monkeypatch, change):
    for name, value in slurm("n[9-10]", "1,2", "n9", 0, **change).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"does not tell its workers: .*srun"):
        read_worker()


def test_what_differs_between_workers_is_named():
    alike = {"tensorflow": "2.21.0", "batch-size": 8}
    assert find_differences([alike, dict(alike)]) == ""
    others = [alike, {"tensorflow": "2.20.0", "batch-size": 8}, {"tensorflow": "2.21.0"}]
    assert find_differences(others) == (
        "tensorflow is 2.20.0 on worker 1, 2.21.0 on worker 0; batch-size is None on worker 2, 8 on worker 0"
    )


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


def neighbouring_free_ports(count: int) -> int:
    """The first of so many, where a job of Slurm may have them."""
    for port in range(10_000, 30_000, count):
        try:
            for server in [socket.create_server(("", port + i)) for i in range(count)]:
                server.close()
        except OSError:
            continue
        return port
    raise AssertionError("no free ports")


@pytest.fixture
def launch(tiny_set):
    """Start `fit` as so many workers; none: one process by itself."""

    def launch(
        run: Path,
        workers: int = 0,
        *more: str,
        of_last: tuple[str, ...] = (),
        by_slurm: bool = False,
        ports: list[int] | None = None,
        epochs: int = 3,
    ) -> list[subprocess.Popen]:
        words = [sys.executable, "-m", "mcar_tf.fit", "--resume", "--out-dir", run, *more]
        words += ["--dataset", "tiny", "--data-dir", tiny_set, "--backbone", "tiny_resnet"]
        words += ["--backbone-width", "0.25", "--weights", "none", "--image-size", "32", "--batch-size", "6"]
        # Regions that are whole images: another order of a sum can't move them by a pixel.
        words += ["--epochs", epochs, "--recipe", "paper", "--top-n", "2", "--tau", "0"]
        if not workers:
            return [start_worker(words)]
        # BatchNorm that sees the batch which one process would see.
        words += ["--strategy", "multi_worker", "--sync-batch-norm"]
        if by_slurm:
            job = str(neighbouring_free_ports(workers) - 10_000)
            tasks = {"SLURM_JOB_ID": job, "SLURM_STEP_NUM_TASKS": str(workers)}
            environments = [slurm("127.0.0.1", str(workers), "127.0.0.1", i, **tasks) for i in range(workers)]
        else:
            ports = ports or free_ports(workers)
            environments = [{"TF_CONFIG": tf_config(i, *ports)} for i in range(workers)]
        return [
            start_worker(words + list(of_last if i == workers - 1 else ()), **environment)
            for i, environment in enumerate(environments)
        ]

    return launch


def start_worker(words: list, stdout: int | None = None, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [str(w) for w in words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[subprocess.Popen]) -> None:
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors


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
    # Every picture once: another count would give another mAP.
    metrics, other_metrics = (json.loads((r / "metrics.json").read_text())["test"] for r in (run, other))
    assert metrics["images"] == other_metrics["images"] == 16
    assert metrics["fused"]["mAP"] == pytest.approx(other_metrics["fused"]["mAP"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "by_slurm"), [(2, False), (3, True)])
def test_workers_train_what_one_process_trains(launch, tmp_path, workers, by_slurm):
    finish(launch(tmp_path / "one"))
    finish(launch(tmp_path / "several", workers, by_slurm=by_slurm))
    assert_same_result(tmp_path / "several", tmp_path / "one", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "batch"), [(2, 8), (3, 6)])
def test_workers_have_the_losses_of_one_process_step_by_step(workers, batch):
    def train(**environment: str) -> subprocess.Popen:
        script = ROOT / "tests" / "helpers" / "on_replicas.py"
        wanted = json.dumps({"replicas": 1, "frozen": True, "batch": batch})
        return start_worker([sys.executable, script, wanted], stdout=subprocess.PIPE, **environment)

    ports = free_ports(workers)
    processes = [train(), *(train(TF_CONFIG=tf_config(i, *ports)) for i in range(workers))]
    printed = [process.communicate(timeout=900) for process in processes]
    one, *of_workers = [json.loads(out.splitlines()[-1])[0] for out, _ in printed]
    assert len(one["losses"]) == 20
    for of_worker in of_workers:
        assert_same_training(of_worker, one)


def errors_of(processes: list[subprocess.Popen]) -> list[str]:
    """What each says last, where all stop for a reason."""
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [2] * len(processes), errors
    return [text.splitlines()[-1] for text in errors]


@pytest.mark.slow
def test_workers_that_differ_stop_with_one_line(launch, tmp_path):
    for line in errors_of(launch(tmp_path / "run", 2, of_last=("--batch-size", "4"))):
        assert line == "error: the workers must be started alike: batch-size is 4 on worker 1, 6 on worker 0."
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_port_in_use_is_said_in_one_line(launch, tmp_path):
    with socket.create_server(("", 0)) as server:
        ports = [server.getsockname()[1], *free_ports(1)]
        workers = launch(tmp_path / "run", 2, ports=ports)
        [line] = errors_of(workers[:1])
    workers[1].kill()  # it would wait for the other's start
    workers[1].communicate()
    assert line.startswith("error: this worker can't listen on its address in TF_CONFIG, is it in use? [")


@pytest.mark.slow
def test_workers_are_killed_or_terminated_and_resume_to_the_same_result(launch, tmp_path):
    finish(launch(tmp_path / "undisturbed", 2, epochs=12))
    run = tmp_path / "run"
    workers = launch(run, 2, "--checkpoint-minutes", "0.000001", epochs=12)
    while not any(run.glob("checkpoints/epoch-*-step-0000001")):
        time.sleep(0.01)
        assert all(worker.poll() is None for worker in workers)
    workers[1].send_signal(signal.SIGKILL)
    _, errors = workers[0].communicate(timeout=300)
    workers[1].communicate()
    assert workers[0].returncode == 2
    assert "another worker ended or can't be reached. Start all workers again with --resume" in errors

    before = set(run.glob("checkpoints/epoch-*"))
    workers = launch(run, 2, "--checkpoint-minutes", "0.000001", epochs=12)
    while not set(run.glob("checkpoints/epoch-*")) - before:
        time.sleep(0.01)
        assert all(worker.poll() is None for worker in workers)
    workers[1].send_signal(signal.SIGTERM)  # the chief hears of it later, and still nobody breaks its step
    time.sleep(0.2)
    workers[0].send_signal(signal.SIGTERM)
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [143, 143], errors
    finish(launch(run, 2, epochs=12))
    assert_same_result(run, tmp_path / "undisturbed", 0)
