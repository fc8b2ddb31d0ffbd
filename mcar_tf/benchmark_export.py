"""An export folder in, what each form costs out: latency and memory, against the plain backbone exported alike."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mcar_tf.benchmark import median_interval
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import convert_tflite, load_runner
from mcar_tf.models.mcar import MCAR, build_mcar

THREADS = (1, 2)
SAVED_MODEL_BATCH = 8
Ask = Callable[[], object]


def benchmark_export(folder: Path, rounds: int = 15) -> list[dict[str, Any]]:
    """Time every form in an export folder, in turn with the plain backbone in the same form.

    Returns:
        An object a form, signature and number of threads: `form`, `signature`, `threads` (None: TensorFlow's own
        choice), `batch_size`, `over_plain` and `over_plain_interval` (the median of the paired ratio and its 95 %
        interval), `milliseconds`, `plain_milliseconds` (medians), `memory_mib` (what loading and asking it takes),
        `file_mb`, `rounds`.

    Raises:
        FileNotFoundError: it is no export folder.
    """
    if not (folder / "parity.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not an export folder: it holds no parity.json (python -m mcar_tf.export makes one)."
        )
    plain = build_plain(json.loads((folder / "parity.json").read_text())["model"])
    results = []
    for path in sorted(folder.glob("mcar-*.tflite")):
        results += benchmark_tflite(path, plain, rounds)
    if (folder / "saved_model" / "1").is_dir():
        results += benchmark_saved_model(folder / "saved_model" / "1", plain, rounds)
    return results


def build_plain(model: Mapping[str, Any]) -> MCAR:
    """The backbone of an exported model with its classifier, without regions. Time does not depend on its weights."""
    return build_mcar(**{**model, "top_n": 0, "local_size": None}, weights=None)


def benchmark_tflite(path: Path, plain: MCAR, rounds: int) -> list[dict[str, Any]]:
    """Both signatures of a TFLite file through LiteRT on the processor (XNNPACK), by number of threads."""
    precision: Any = path.stem.removeprefix("mcar-")
    content = path.read_bytes()
    image = load_runner(content).get_input_details()["image"]
    picture = np.random.default_rng(0).integers(0, 256, image["shape"]).astype(image["dtype"])
    calibration = [picture[0].astype(np.float32)] if precision == "int8" else None
    input_type: Any = np.dtype(image["dtype"]).name
    plain_content = convert_tflite(plain, precision, calibration, input_type=input_type)
    results = []
    for threads in THREADS:
        runners = {
            "plain": load_runner(plain_content, "global_only", threads),
            "global_only": load_runner(content, "global_only", threads),
            "mcar": load_runner(content, "mcar", threads),
        }
        asks = {name: (lambda runner=runner: runner(image=picture)) for name, runner in runners.items()}
        for signature, measured in compare(asks, rounds).items():
            results.append(
                {
                    "form": path.name,
                    "signature": signature,
                    "threads": threads,
                    "batch_size": 1,
                    **measured,
                    "memory_mib": peak_memory(path, signature, threads),
                    "file_mb": len(content) / 1e6,
                }
            )
    return results


def benchmark_saved_model(path: Path, plain: MCAR, rounds: int) -> list[dict[str, Any]]:
    """The SavedModel on a batch of pixels, with the threads that TensorFlow takes."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(plain, [str(c) for c in range(plain.num_classes)], Path(folder) / "1")
        loaded = {"plain": tf.saved_model.load(f"{folder}/1"), "serve_tensor": tf.saved_model.load(str(path))}
    size = (SAVED_MODEL_BATCH, plain.image_size, plain.image_size, 3)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, size, np.uint8))
    asks = {
        name: (lambda form=form: form.signatures["serve_tensor"](images=images)["probs"].numpy())
        for name, form in loaded.items()
    }
    file_mb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    return [
        {
            "form": "saved_model",
            "signature": signature,
            "threads": None,
            "batch_size": SAVED_MODEL_BATCH,
            **measured,
            "memory_mib": peak_memory(path, signature, 0),
            "file_mb": file_mb,
        }
        for signature, measured in compare(asks, rounds).items()
    ]


def compare(asks: Mapping[str, Ask], rounds: int) -> dict[str, dict[str, Any]]:
    """Time functions in turn, so that a slow moment of the machine meets all of them, each against `plain`."""
    for _ in range(2):  # memory allocated, then warm
        for ask in asks.values():
            ask()
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(rounds):
        for name, ask in asks.items():
            start = time.perf_counter()
            ask()
            times[name].append(1000 * (time.perf_counter() - start))
    plain = np.array(times.pop("plain"))
    return {
        name: {
            "over_plain": float(np.median(values / plain)),
            "over_plain_interval": median_interval(values / plain),
            "milliseconds": float(np.median(values)),
            "plain_milliseconds": float(np.median(plain)),
            "rounds": rounds,
        }
        for name, values in ((name, np.array(found)) for name, found in times.items())
    }


def peak_memory(path: Path, signature: str, threads: int) -> float:
    """MiB that loading a form and asking it takes, measured in a process of its own."""
    words = [sys.executable, "-m", "mcar_tf.exporting.peak_memory", str(path), signature, str(threads)]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return float(output.splitlines()[-1])


def table_lines(results: list[dict[str, Any]]) -> list[str]:
    """The results for people, ratios first."""
    lines = [
        f"{'form':22}{'signature':13}{'batch':>6}{'threads':>8}{'over the plain backbone':>25}"
        f"{'ms':>9}{'plain ms':>10}{'memory MiB':>12}{'file MB':>9}"
    ]
    for result in results:
        low, high = result["over_plain_interval"]
        ratio = f"{result['over_plain']:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"{result['form']:22}{result['signature']:13}{result['batch_size']:6}{result['threads'] or '-':>8}"
            f"{ratio:>25}{result['milliseconds']:9.1f}{result['plain_milliseconds']:10.1f}"
            f"{result['memory_mib']:12.1f}{result['file_mb']:9.2f}"
        )
    return lines
