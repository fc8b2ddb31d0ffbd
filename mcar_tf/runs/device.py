"""Describes the device that a command computes on, and gives advice if a GPU is not used."""

import os
import shutil
import subprocess
import sys

import tensorflow as tf


def say_device(*facts: str) -> None:
    """Print a line with the device and facts about the command; below it, a hint if a GPU is not used.

    Args:
        facts: for example the precision, the number of pictures, the run folder.
    """
    print(" | ".join([f"device: {describe_device()}", *facts]), flush=True)
    hint = unused_gpu()
    if hint:
        print(hint, flush=True)


def warn_of_slow_precision(precision: str) -> None:
    """Print a warning if a precision that a user asks for is slower than float32 on the device that computes."""
    if precision != "float32" and not _gpus():
        print(f"--precision {precision} is slower on a CPU than float32.", file=sys.stderr, flush=True)


def describe_device() -> str:
    """The GPUs that TensorFlow computes on, or the CPU and its cores."""
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in _gpus()]
    if not names:
        return f"CPU, {tf.config.threading.get_intra_op_parallelism_threads() or _cores()} cores"
    kinds = {name: names.count(name) for name in names}
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in kinds.items())


def unused_gpu() -> str:
    """Advice if the driver knows a GPU but TensorFlow found none; else an empty string, as if GPUs are hidden."""
    if _gpus() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    known = _driver_gpus()
    if not known:
        return ""
    return (
        f"on the CPU: TensorFlow found no GPU, but nvidia-smi knows {known[0]}. TensorFlow's CUDA libraries:"
        ' pip install "mcar-tf[gpu]"'
    )


def _gpus() -> list[tf.config.PhysicalDevice]:
    return tf.config.list_physical_devices("GPU")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _driver_gpus() -> list[str]:
    """Names of the GPUs that NVIDIA's driver knows; empty if there is no driver or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        found = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [line.strip() for line in found.stdout.splitlines() if line.strip()] if not found.returncode else []
    )
