"""The command; what it calls is tested in building/test_on_beam.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from loading import loads
from miniature import write_voc

ROOT = Path(__file__).parent.parent.parent


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_command_on_worker_processes_writes_the_same_bytes(tmp_path):
    pytest.importorskip("apache_beam")
    source = write_voc(tmp_path)
    common = ["--dataset", "voc2007", "--source", os.path.relpath(source, tmp_path)]
    for module, data_dir, more in (
        ("pipelines.build", "processes", ["--processes", "1"]),
        (
            "pipelines.beam",
            "beam",
            ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"],
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, *common, "--data-dir", data_dir, *more],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "train: 4 pictures in 1 shard, 0 left out" in done.stdout
    assert content(tmp_path / "beam") == content(tmp_path / "processes")


def test_help_loads_neither_beam_nor_tensorflow():
    assert loads("pipelines.beam", "--help") == []
