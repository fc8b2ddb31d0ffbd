"""Real misfortunes: a disk that is full, one that cannot be written, a build whose first process is killed."""

import os
import shlex
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from scenes import build_command, raw_set, small_shards

from pipelines.building.sets import build_set
from pipelines.manifest import load_manifest

pytestmark = pytest.mark.slow


def on_a_small_disk(folder: Path, script: str) -> subprocess.CompletedProcess:
    """Run a shell script in which `$DISK` is a file system of its own; skips where none can be mounted."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs `unshare -Urm`: a name space in which everyone may mount")
    folder.mkdir()
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-euc", f"DISK={shlex.quote(str(folder))}\n{script}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path, monkeypatch):
    small_shards(monkeypatch)
    raw = raw_set(tmp_path / "source", 300)
    build_set(raw, tmp_path / "undisturbed", processes=1)
    encoded = sum(file.stat().st_size for file in (tmp_path / "source").iterdir())
    command = shlex.join(build_command(tmp_path, processes=2, count=300))
    # Room for the pictures, which is asked for beforehand, and some shards; but each small file takes a page of 4 kB.
    done = on_a_small_disk(
        tmp_path / "data",
        f"""
        mount -t tmpfs -o size={encoded * 3} tmpfs $DISK
        {command} || echo "exit code $?"
        ls $DISK/tiny
        mount -o remount,size=100m $DISK
        {command}
        cp -r $DISK/tiny {shlex.quote(str(tmp_path / "saved"))}
        """,
    )
    assert done.returncode == 0, done.stderr
    said, *listed = done.stdout.splitlines()
    assert said == "exit code 1"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("error", "internal"))]
    assert line.startswith("error: the disk is full")
    assert line.endswith("Free some space and run the same command again.")
    assert "Traceback" not in done.stderr
    kept = [name for name in listed if name.endswith(".tfrecord")]
    assert kept  # and nothing half-written, nothing that passes for a set
    assert not [name for name in listed if name.startswith("partial-") or name == "dataset.json"]
    for file in (tmp_path / "undisturbed" / "tiny").iterdir():
        assert (tmp_path / "saved" / file.name).read_bytes() == file.read_bytes()


def test_a_failure_in_one_process_leaves_nothing_half_written_by_the_others(tmp_path):
    raw = raw_set(tmp_path / "source", 1000, splits=("train", "test"))
    folder = tmp_path / "data" / "tiny"

    def spoil_test_split():
        while len(list(folder.glob("partial-*"))) < 2:  # until both shards are open
            time.sleep(0.01)
        for image in (tmp_path / "source").glob("test*"):
            image.write_bytes(b"no picture")

    threading.Thread(target=spoil_test_split, daemon=True).start()
    with pytest.raises(ValueError, match=r"test\d+\.jpg"):
        build_set(raw, tmp_path / "data", processes=2, on_bad_image="stop")
    assert not [file.name for file in folder.iterdir() if file.is_file()]


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path):
    raw_set(tmp_path / "source", 3)
    command = shlex.join(build_command(tmp_path, processes=1, count=3))
    done = on_a_small_disk(tmp_path / "data", f"mount -t tmpfs -o ro tmpfs $DISK; {command}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path}/data/tiny: Read-only file system"
    assert "Traceback" not in done.stderr


def test_killing_a_build_ends_its_processes_and_the_next_one_finishes(tmp_path, monkeypatch):
    small_shards(monkeypatch)
    raw = raw_set(tmp_path / "source", 300)
    build_set(raw, tmp_path / "undisturbed", processes=1)
    command = build_command(tmp_path, processes=2, count=300, seconds_a_picture=0.02)
    parent = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    folder = tmp_path / "data" / "tiny"
    while not list(folder.glob("*.tfrecord")):
        assert parent.poll() is None
        time.sleep(0.001)
    parent.send_signal(signal.SIGKILL)  # the parent alone, as the system does that has run out of memory
    parent.wait()
    deadline = time.monotonic() + 60
    while True:
        try:
            os.killpg(parent.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "processes of a killed build live on"
        time.sleep(0.05)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for file in (tmp_path / "undisturbed" / "tiny").iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    assert load_manifest(tmp_path / "data", "tiny").splits["train"].examples == 300
