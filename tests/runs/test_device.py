"""The line about the device: on a machine without a GPU, and on one whose GPU TensorFlow does not find."""

import json
import os
import shutil

import keras
import pytest

from mcar_tf import benchmark, evaluate
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


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_was_hidden_is_no_hint(driver, hidden, monkeypatch):
    driver('echo "NVIDIA H100 80GB HBM3"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.unused_gpu() == ""


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_on_a_cpu_is_warned_of(precision, monkeypatch, capsys):
    device.warn_of_slow_precision("float32")
    assert capsys.readouterr().err == ""
    device.warn_of_slow_precision(precision)
    assert capsys.readouterr().err == f"--precision {precision} is slower on a CPU than float32.\n"
    monkeypatch.setattr(device, "_gpus", lambda: ["a card"])
    device.warn_of_slow_precision(precision)
    assert capsys.readouterr().err == ""


def test_a_benchmark_begins_with_it_too(capsys, request):
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    words = "--backbone tiny_resnet --image-size 32 --batch-size 1 --rounds 3 --precision mixed_float16"
    benchmark.main(words.split())
    printed = capsys.readouterr()
    cores = len(os.sched_getaffinity(0))
    first = f"device: CPU, {cores} cores | mixed_float16 | random pictures | 80 classes"
    assert printed.out.splitlines()[0] == first
    assert "slower on a CPU" in printed.err


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
