"""The line about the device: on a machine without a GPU, and on one whose GPU TensorFlow does not find."""

import json
import os
import shutil

import pytest

from mcar_tf import evaluate
from mcar_tf.runs import device


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's `nvidia-smi`: a script with the text that is given."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


def test_a_gpu_that_tensorflow_does_not_find_is_named_with_what_to_install(driver):
    driver('echo "NVIDIA H100 80GB HBM3"')
    assert device.unused_gpu() == (
        "on the CPU: TensorFlow found no GPU, but nvidia-smi knows NVIDIA H100 80GB HBM3. TensorFlow's CUDA"
        ' libraries: pip install "mcar-tf[gpu]"'
    )


@pytest.mark.parametrize("script", ["exit 9", "echo 'NVIDIA-SMI has failed'; exit 9", ""])
def test_a_driver_that_knows_no_gpu_is_no_hint(driver, script):
    driver(script)
    assert device.unused_gpu() == ""


def test_a_command_begins_with_what_it_computes_on(untrained_run, tmp_path, capsys):
    run = shutil.copytree(untrained_run, tmp_path / "run")
    evaluate.main(["--run", str(run)])
    first = capsys.readouterr().out.splitlines()[0]
    cores = len(os.sched_getaffinity(0))
    assert first == f"device: CPU, {cores} cores | float32 | 16 pictures of test | 4 classes | {run}"


def test_a_run_notes_its_device(untrained_run):
    from mcar_tf.runs.folder import environment_of, read_run_config
    from pipelines.manifest import load_manifest

    config = read_run_config(untrained_run)
    found = environment_of(config, load_manifest(config.data_dir, config.dataset))
    assert found["device"].startswith("CPU, ")
    assert json.dumps(found)
