"""Measure latency and memory of each form in an export folder, against the plain backbone exported the same way."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mcar_tf.benchmarking.peak_memory import STATUS
from mcar_tf.benchmarking.timing import median_interval, time_in_turn
from mcar_tf.exporting.folder import read_parity
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from mcar_tf.models.mcar import MCAR, build_mcar
from pipelines.words import UNKNOWN

THREADS = (1, 2)
SAVED_MODEL_BATCH = 8
Ask = Callable[[], object]


def time_forms(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Time every form in an export folder, alternating with the plain backbone in the same form.

    Yields:
        One dict per form, signature and number of threads: `form`, `signature`, `threads` (None: TensorFlow's own
        choice), `batch_size`, `over_plain` and `over_plain_interval` (the median of the paired ratio and its 95 %
        interval), `milliseconds`, `plain_milliseconds` (medians), `memory_mib` (for loading and calling it; None if
        the system does not report it), `file_mb`, `rounds`.
    """
    plain = build_plain(read_parity(folder)["model"])
    for path in sorted(folder.glob("mcar-*.tflite")):
        yield from time_tflite(path, plain, rounds)
    if (folder / "saved_model" / "1").is_dir():
        yield from time_saved_model(folder / "saved_model" / "1", plain, rounds)


def build_plain(model: Mapping[str, Any]) -> MCAR:
    """The backbone and classifier of an exported model, without regions. The time does not depend on the weights."""
    return build_mcar(**{**model, "top_n": 0, "glance_size": None, "local_size": None}, weights=None)


def time_tflite(path: Path, plain: MCAR, rounds: int) -> Iterator[dict[str, Any]]:
    """Time both signatures of a TFLite file in LiteRT on the CPU (XNNPACK), for each number of threads."""
    precision = path.stem.removeprefix("mcar-")
    content = path.read_bytes()
    image = load_runner(content).get_input_details()["image"]
    picture = np.random.default_rng(0).integers(0, 256, image["shape"]).astype(image["dtype"])
    calibration = [picture[0].astype(np.float32)] if precision == "int8" else None
    input_type = np.dtype(image["dtype"]).name
    plain_content = convert_tflite(plain, precision, calibration, input_type=input_type)
    for threads in THREADS:
        runners = {
            "plain": load_runner(plain_content, "global_only", threads),
            "global_only": load_runner(content, "global_only", threads),
            "mcar": load_runner(content, "mcar", threads),
        }
        asks = {name: (lambda runner=runner: runner(image=picture)) for name, runner in runners.items()}
        for signature, measured in compare(asks, rounds).items():
            yield {
                "form": path.name,
                "signature": signature,
                "threads": threads,
                "batch_size": 1,
                **measured,
                "memory_mib": peak_memory(path, signature, threads),
                "file_mb": len(content) / 1e6,
            }


def time_saved_model(path: Path, plain: MCAR, rounds: int) -> Iterator[dict[str, Any]]:
    """Time the SavedModel on a batch of pixels and on JPEG files, with as many threads as TensorFlow chooses."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(plain, [str(c) for c in range(plain.num_classes)], Path(folder) / "1")
        loaded = {"plain": tf.saved_model.load(f"{folder}/1"), "exported": tf.saved_model.load(str(path))}
    coarse = np.random.default_rng(0).integers(
        0, 256, (SAVED_MODEL_BATCH, 8, 8, 3)
    )  # not fine noise: a JPEG of that is not like a photograph
    images = tf.cast(tf.image.resize(coarse, (plain.image_size, plain.image_size)), tf.uint8)
    encoded = tf.map_fn(tf.io.encode_jpeg, images, fn_output_signature=tf.string)
    file_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    inputs = {"serve_tensor": images, "serving_default": encoded, "global_only": encoded}
    for signature, value in inputs.items():
        asks = {name: ask_signature(form.signatures[signature], value) for name, form in loaded.items()}
        yield {
            "form": "saved_model",
            "signature": signature,
            "threads": None,
            "batch_size": SAVED_MODEL_BATCH,
            **compare(asks, rounds)["exported"],
            "memory_mib": peak_memory(path, signature, 0),
            "file_mb": file_mb,
        }


def ask_signature(signature: Callable[..., dict[str, tf.Tensor]], value: tf.Tensor) -> Ask:
    """A function that calls a signature of one input and waits for the answer."""
    return lambda: signature(value)["global_probs"].numpy()


def compare(asks: Mapping[str, Ask], rounds: int) -> dict[str, dict[str, Any]]:
    """Time functions in turn, and compare each with `plain`."""
    times = time_in_turn(asks, rounds)
    plain = times.pop("plain")
    return {
        name: {
            "over_plain": float(np.median(found / plain)),
            "over_plain_interval": median_interval(found / plain),
            "milliseconds": float(np.median(found)),
            "plain_milliseconds": float(np.median(plain)),
            "rounds": rounds,
        }
        for name, found in times.items()
    }


def peak_memory(path: Path, signature: str, threads: int) -> float | None:
    """MiB that loading and calling a form takes, measured in a separate process; None on systems other than Linux."""
    if not STATUS.exists():
        return None
    words = [sys.executable, "-m", "mcar_tf.benchmarking.peak_memory", str(path), signature, str(threads)]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return float(output.splitlines()[-1])


HEADER = (
    f"{'form':22}{'signature':17}{'batch':>5}{'threads':>8}{'over the plain backbone':>25}"
    f"{'ms':>9}{'plain ms':>10}{'memory MiB':>12}{'file MB':>9}"
)
LEGEND = (
    "over the plain backbone, exported in the same form: the median of the paired ratio and its 95 % interval."
    " Milliseconds a batch, medians; memory: what loading and asking takes, in a process of its own."
)


def table_row(result: dict[str, Any]) -> str:
    """A result as a table row under `HEADER`."""
    low, high = result["over_plain_interval"]
    ratio = f"{result['over_plain']:.2f} [{low:.2f}, {high:.2f}]"
    memory = UNKNOWN if result["memory_mib"] is None else f"{result['memory_mib']:.1f}"
    return (
        f"{result['form']:22}{result['signature']:17}{result['batch_size']:5}{result['threads'] or '-':>8}"
        f"{ratio:>25}{result['milliseconds']:9.1f}{result['plain_milliseconds']:10.1f}"
        f"{memory:>12}{result['file_mb']:9.2f}"
    )
